"""Twenty optimizer steps, full and LoRA, follow the losses of torch's AdamW on transformers' and peft's model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from lema_jax.training.step import State, train_step
from lema_jax.weights import hf_config, names, peft
from lema_jax.weights.families import FAMILIES

pytest.importorskip("torch", reason="the independent implementation; install the extra `oracle`")
import torch

from tests import hf_oracle
from tests.torch_training import Adamw

STEPS = 20
every_family = pytest.mark.parametrize(
    "family", [family if family == "llama" else pytest.param(family, marks=pytest.mark.long) for family in FAMILIES]
)
OPTIMIZER = OptimizerConfig(learning_rate=3e-3, weight_decay=0.1, clip_norm=0.3)


def batches() -> list[dict[str, np.ndarray]]:
    """Rows whose loss is on their later part alone, as a completion's is."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(STEPS):
        tokens = random.integers(0, 61, (4, 16)).astype(np.int32)
        starts = random.integers(1, 12, (4, 1))
        made.append({"tokens": tokens, "weights": (np.arange(16) >= starts).astype(np.float32)})
    return made


def our_losses(trained, frozen, collection: str, model: Llama) -> list[float]:
    optimizer = make_optimizer(OPTIMIZER, learning_rate(OPTIMIZER, STEPS))
    schedule = learning_rate(OPTIMIZER, STEPS)
    step = functools.partial(
        train_step,
        model=model,
        collection=collection,
        optimizer=optimizer,
        schedule=schedule,
        accumulation=1,
        max_grad_norm=1e9,
        seed=0,
    )
    compiled = jax.jit(step)
    state, losses = State(jnp.int32(0), trained, optimizer.init(trained)), []
    rows = {"segment_ids": np.ones((4, 16), np.int32), "positions": np.tile(np.arange(16, dtype=np.int32), (4, 1))}
    for batch in batches():
        state, metrics = compiled(state, frozen, batch | rows)
        losses.append(float(metrics["loss"]))
    return losses


def their_losses(model: torch.nn.Module) -> list[float]:
    optimizer, losses = Adamw(model, OPTIMIZER), []
    for batch in batches():
        ids = torch.from_numpy(batch["tokens"]).long()
        labels = ids.masked_fill(torch.from_numpy(batch["weights"]) == 0, -100)
        losses.append(optimizer.step(model(ids, labels=labels).loss))
    return losses


@pytest.mark.slow
@every_family
def test_full_training(family):
    raw = hf_oracle.small(family)
    theirs, config = hf_oracle.make(raw), hf_config.parse(raw, "test")
    params = jax.tree.map(jnp.array, names.load_model(hf_oracle.StateDict(theirs), config))
    ours = our_losses(params, {}, "params", Llama(config, Compute()))
    np.testing.assert_allclose(ours, their_losses(theirs), rtol=1e-3)
    assert np.ptp(ours) > 0.05


@pytest.mark.slow
@every_family
def test_lora_training(family, tmp_path):
    library = pytest.importorskip("peft")
    raw = hf_oracle.small(family)
    base, config = hf_oracle.make(raw), hf_config.parse(raw, "test")
    params = names.load_model(hf_oracle.StateDict(base), config)
    shape = library.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = library.get_peft_model(base, shape)
    theirs.save_pretrained(tmp_path)  # begins as peft begins it: A random, B zero
    adapters, lora, *_ = peft.load_adapter(tmp_path, config)
    adapters = jax.tree.map(jnp.array, adapters)
    ours = our_losses(adapters, {"params": params}, "lora", Llama(config, Compute(), lora))
    np.testing.assert_allclose(ours, their_losses(theirs), rtol=1e-3)
