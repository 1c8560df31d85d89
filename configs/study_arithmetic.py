"""Does learning from mistakes help a 1.7 M-parameter LLaMA on generated arithmetic problems? The quickstart.

python -m lema_jax.study --config=configs/study_arithmetic.py
python -m lema_jax.study --config=configs/study_arithmetic.py:lora --config.out=runs/study_lora
python -m lema_jax.study --config=configs/study_arithmetic.py:lora@dev --config.arms=cot,lema --config.out=runs/lora_dev

As in the paper, the student has learnt chain of thought before, and all arms learn about one set of questions: `cot`
has their gold rationales and the student's own right attempts at them, and corrections take the place of some of these.
Its mistakes are mostly slips of arithmetic. The other settings change one thing each.
"""

import dataclasses

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.planning.config import Attempts, Mix, Pretraining, StudyConfig, Test
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig

MODEL = LlamaConfig(  # wide and shallow: a step on a CPU costs as much as one of four layers of 128, and learns more
    vocab_size=1536,
    hidden_size=256,
    intermediate_size=512,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    head_dim=64,
    max_positions=512,
    tie_embeddings=True,
)


def optimizer(learning_rate: float, warmup_steps: int) -> OptimizerConfig:
    return OptimizerConfig(
        learning_rate=learning_rate,
        schedule="cosine",
        warmup_steps=warmup_steps,
        beta2=0.98,
        weight_decay=0.1,
        clip_norm=1.0,
    )


def converged() -> StudyConfig:
    student = TrainConfig(
        out="",
        data=DataConfig(batch_size=4, seq_len=256),
        steps=1400,
        accumulation=0,  # a row at a time: it stays in a core's cache
        model=MODEL,
        optimizer=optimizer(2e-3, 60),
        compute=Compute(scan_layers=False),
        checkpoint_every=200,
        log_every=20,
    )
    arm = TrainConfig(
        out="",
        data=DataConfig(batch_size=0, seq_len=384, examples_per_step=16),
        epochs=1,
        accumulation=0,
        optimizer=optimizer(1e-4, 10),
        compute=Compute(scan_layers=False),
        checkpoint_every=50,
    )
    return StudyConfig(
        out="runs/study_arithmetic",
        task="arithmetic",
        pretraining=Pretraining(student, tokenizer_ids=1536),
        attempts=Attempts(questions=2500, temperature=0.7, max_new_tokens=128),
        arms=("cot", "cot_part", "cot_plus_extracted", "lema"),
        seeds=(0, 1, 2),
        mix=Mix(equal="examples", amount=1000, max_tokens=384, questions=2500, own_attempts=True),
        training=arm,
        tests=(Test("arithmetic", "test", 1000),),
        max_new_tokens=128,
        batch_size=128,
    )


def chosen_by() -> StudyConfig:
    """What the setting was judged by, on `dev`: shares and orders of corrections."""
    config = converged()
    config.arms = (*config.arms, "lema@0.1", "lema@0.5", "corrections_first")
    return config


def all_arms() -> StudyConfig:
    """The recipes of `lema_jax.data.arms` beside each other; four attempts a question make pairs of solutions."""
    config = converged()
    config.arms = (*config.arms, "corrections_first", "rft", "inline", "inline:0", "inline_restart", "critique")
    config.arms += ("negatives", "mixed:lema@0.14,inline@0.14", "preference", "preference_solutions")
    config.attempts = dataclasses.replace(config.attempts, samples=4)
    config.training.preference.nll_weight = 1.0
    return config


def early() -> StudyConfig:
    """The student stops before it copies names and numbers from the question: any chain of thought is news to it."""
    config = converged()
    assert config.pretraining
    config.pretraining.train.steps = 500
    return config


def lora() -> StudyConfig:
    """Adapters on a frozen student, at the rate that adapters want."""
    config = converged()
    config.training.lora = LoraConfig(rank=16, alpha=16, dropout=0.0)
    config.training.optimizer = optimizer(1e-3, 10)
    return config


def few_questions() -> StudyConfig:
    """As many examples about fewer questions: several attempts and corrections of each."""
    config = converged()
    config.mix = dataclasses.replace(config.mix, questions=1000)
    config.attempts = dataclasses.replace(config.attempts, questions=1000, samples=3)
    return config


def many_questions() -> StudyConfig:
    """As many examples about more questions: hardly two of any."""
    config = converged()
    config.mix = dataclasses.replace(config.mix, questions=10_000)
    config.attempts = dataclasses.replace(config.attempts, questions=10_000)
    return config


SETTINGS = {
    setting.__name__: setting
    for setting in (converged, chosen_by, all_arms, early, lora, few_questions, many_questions)
}


def get_config(setting: str = "converged") -> StudyConfig:
    """The study of a setting. `SETTING@dev` has five seeds and development questions, by which settings are judged."""
    name, _, where = setting.partition("@")
    if name not in SETTINGS or where not in ("", "dev"):
        raise ValueError(f"there is no setting {setting!r}; choose one of {', '.join(SETTINGS)}, alone or with @dev")
    config = SETTINGS[name]()
    if where:
        config.seeds, config.tests = (0, 1, 2, 3, 4), (Test("arithmetic", "dev"),)
    return config
