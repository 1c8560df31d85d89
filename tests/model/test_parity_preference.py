"""Twenty steps of preference training, full and LoRA, follow DPO's formula in torch, and TRL's `DPOTrainer`."""

import copy
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.training import objectives
from lema_jax.training.objectives import PreferenceConfig
from lema_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from lema_jax.training.step import State, train_step
from lema_jax.weights import hf_config, names, peft

pytest.importorskip("torch", reason="the independent implementation; install the extra `oracle`")
import torch
from torch.nn.functional import logsigmoid

from tests import hf_oracle
from tests.torch_training import Adamw

STEPS, PAIRS, LENGTH, VOCABULARY = 20, 4, 40, 61
OPTIMIZER = OptimizerConfig(learning_rate=3e-3, weight_decay=0.1, clip_norm=0.3)
Pair = tuple[list[int], list[int], list[int]]  # prompt, chosen, rejected


def pairs(chosen: int | None = None) -> list[list[Pair]]:
    """Of each step; `chosen`: tokens of all chosen completions."""
    random = np.random.default_rng(0)
    ids = lambda count: random.integers(1, VOCABULARY, count).tolist()
    one = lambda: (ids(random.integers(2, 7)), ids(chosen or random.integers(3, 12)), ids(random.integers(3, 12)))
    return [[one() for _ in range(PAIRS)] for _ in range(STEPS)]


def packed(some: list[Pair]) -> dict[str, np.ndarray]:
    """A pair in each row: the chosen sequence, then the rejected one."""
    rows = {name: np.zeros((PAIRS, LENGTH), np.int32) for name in ("tokens", "segment_ids", "positions")}
    weights = np.zeros((PAIRS, LENGTH), np.float32)
    for row, (prompt, *both) in enumerate(some):
        start = 0
        for segment, completion in enumerate(both, start=1):
            span = slice(start, start := start + len(prompt) + len(completion))
            rows["tokens"][row, span] = prompt + completion
            rows["segment_ids"][row, span] = segment
            rows["positions"][row, span] = np.arange(span.stop - span.start)
            weights[row, start - len(completion) : start] = 1
    return rows | {"weights": weights}


def our_losses(
    trained: Any, frozen: Any, collection: str, model: Llama, how: PreferenceConfig, steps: list[list[Pair]]
) -> list[float]:
    schedule = learning_rate(OPTIMIZER, STEPS)
    optimizer = make_optimizer(OPTIMIZER, schedule)
    named = {"model": model, "collection": collection}
    step = functools.partial(
        train_step,
        optimizer=optimizer,
        schedule=schedule,
        accumulation=1,
        max_grad_norm=1e9,
        seed=0,
        objective=objectives.of("preference", how),
        **named,
    )
    compiled = jax.jit(step)
    reference = jax.jit(functools.partial(objectives.nll_of_tokens, **named))
    begun, losses = trained, []
    state = State(jnp.int32(0), trained, optimizer.init(trained))
    for some in steps:
        batch = packed(some)
        state, metrics = compiled(state, frozen, batch | {"reference": reference(begun, frozen, batch)})
        losses.append(float(metrics["loss"]))
    return losses


def log_probs(model: torch.nn.Module, some: list[Pair]) -> torch.Tensor:
    """[pairs, 2]: of the chosen and the rejected completion after their prompt, each in a row of its own."""
    rows = [(len(prompt), prompt + completion) for prompt, *both in some for completion in both]
    ids = torch.zeros(len(rows), max(len(row) for _, row in rows), dtype=torch.long)
    learnt = torch.zeros(ids.shape)
    for number, (start, row) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        learnt[number, start : len(row)] = 1
    by_token = model(ids).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return (by_token * learnt[:, 1:]).sum(1).reshape(-1, 2)


def their_losses(
    model: torch.nn.Module, reference: list[torch.Tensor], how: PreferenceConfig, steps: list[list[Pair]]
) -> list[float]:
    """DPO as its paper writes it, with cDPO's smoothing and RPO's nll term. `reference`: [pairs, 2] of each step."""
    optimizer, losses = Adamw(model, OPTIMIZER), []
    for some, before in zip(steps, reference, strict=True):
        chosen, rejected = log_probs(model, some).unbind(1)
        margin = how.beta * ((chosen - before[:, 0]) - (rejected - before[:, 1]))
        lengths = torch.tensor([len(pair[1]) for pair in some])
        dpo = -(1 - how.label_smoothing) * logsigmoid(margin) - how.label_smoothing * logsigmoid(-margin)
        losses.append(optimizer.step((dpo - how.nll_weight * chosen / lengths).mean()))
    return losses


def references(model: torch.nn.Module, steps: list[list[Pair]]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [log_probs(model, some) for some in steps]


def full() -> tuple[torch.nn.Module, Any, Llama]:
    """transformers' model, and its weights and architecture as ours."""
    raw = hf_oracle.small("llama")
    theirs, config = hf_oracle.make(raw), hf_config.parse(raw, "test")
    params = jax.tree.map(jnp.array, names.load_model(hf_oracle.StateDict(theirs), config))
    return theirs, params, Llama(config, Compute())


@pytest.mark.slow
def test_full_training() -> None:
    theirs, params, model = full()
    how, steps = PreferenceConfig(beta=0.3, label_smoothing=0.1, nll_weight=0.5), pairs()
    ours = our_losses(params, {}, "params", model, how, steps)
    np.testing.assert_allclose(ours, their_losses(theirs, references(theirs, steps), how, steps), rtol=1e-3)
    assert np.ptp(ours) > 0.05


def lora(tmp_path: Any) -> tuple[torch.nn.Module, Any, Any, Llama]:
    """peft's model, and its frozen weights, adapters and architecture as ours."""
    library = pytest.importorskip("peft")
    base, params, model = full()
    shape = library.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = library.get_peft_model(base, shape)
    theirs.save_pretrained(tmp_path)  # begins as peft begins it: A random, B zero
    adapters, found, *_ = peft.load_adapter(tmp_path, model.config)
    return theirs, params, jax.tree.map(jnp.array, adapters), model.clone(lora=found)


@pytest.mark.slow
def test_lora_training_with_the_base_as_reference(tmp_path: Any) -> None:
    theirs, params, adapters, model = lora(tmp_path)
    how, steps = PreferenceConfig(beta=0.5, reference="base"), pairs()
    ours = our_losses(adapters, {"params": params}, "lora", model, how, steps)
    with theirs.disable_adapter():
        before = references(theirs, steps)
    np.testing.assert_allclose(ours, their_losses(theirs, before, how, steps), rtol=1e-3)
    assert np.ptp(ours) > 0.01


# --- TRL --------------------------------------------------------------------------------------------------------------


def trainer_losses(model: torch.nn.Module, how: PreferenceConfig, steps: list[list[Pair]], out: Any) -> list[float]:
    """TRL's, on words that its tokenizer turns into the same ids, in the same order."""
    trl = pytest.importorskip("trl", reason="TRL is not installed; the formula's own test needs torch alone")
    datasets = pytest.importorskip("datasets")
    import tokenizers
    import transformers

    vocabulary = {"</s>": 0} | {f"w{id}": id for id in range(1, VOCABULARY)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="</s>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")
    text = lambda ids: " ".join(f"w{id}" if id else "</s>" for id in ids)
    rows = [
        {"prompt": text(prompt) + " ", "chosen": text(chosen), "rejected": text(rejected)}
        for some in steps
        for prompt, chosen, rejected in some
    ]

    class InOrder(trl.DPOTrainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    kinds = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, how.nll_weight]}
    config = trl.DPOConfig(
        output_dir=str(out),
        beta=how.beta,
        **kinds,
        per_device_train_batch_size=PAIRS,
        max_steps=STEPS,
        logging_steps=1,
        learning_rate=OPTIMIZER.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=OPTIMIZER.weight_decay,
        max_grad_norm=OPTIMIZER.clip_norm,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    adapted = hasattr(model, "peft_config")
    trainer = InOrder(
        model=model,
        ref_model=None if adapted else copy.deepcopy(model),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def ended(steps: list[list[Pair]]) -> list[list[Pair]]:
    """The pairs with EOS, id 0, which TRL adds."""
    return [[(prompt, [*chosen, 0], [*rejected, 0]) for prompt, chosen, rejected in some] for some in steps]


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [False, True])
def test_trl(adapters: bool, tmp_path: Any) -> None:
    how, steps = PreferenceConfig(beta=0.3, nll_weight=0.5), ended(pairs(chosen=7))  # TRL's nll is a mean over tokens
    if adapters:
        theirs, params, trained, model = lora(tmp_path / "peft")
        ours = our_losses(trained, {"params": params}, "lora", model, how, steps)
    else:
        theirs, trained, model = full()
        ours = our_losses(trained, {}, "params", model, how, steps)
    np.testing.assert_allclose(ours, trainer_losses(theirs, how, steps, tmp_path / "trl"), rtol=1e-3)
