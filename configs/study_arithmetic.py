"""Does learning from mistakes help a 1.2 M-parameter LLaMA on generated arithmetic problems? The quickstart.

python -m lema_jax.study --config=configs/study_arithmetic.py
python -m lema_jax.study --config=configs/study_arithmetic.py:converged --config.out=runs/study_converged

As in the paper, all arms learn about one set of questions: `cot` has their gold rationales and the student's own right
attempts at them, and corrections take the place of some of these. Unlike in the paper, the student stops early, so that
the study takes minutes: any further chain of thought helps it. In the setting `converged` it takes four times as many
steps.
"""

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.planning.config import Attempts, Mix, Pretraining, StudyConfig, Test
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig

MODEL = LlamaConfig(
    vocab_size=1536,
    hidden_size=128,
    intermediate_size=512,
    num_layers=4,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
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


STEPS = {"early": 700, "converged": 2800}  # of the student


def get_config(setting: str = "early") -> StudyConfig:
    if setting not in STEPS:
        raise ValueError(f"there is no setting {setting!r}; choose one of {', '.join(STEPS)}")
    student = TrainConfig(
        out="",
        data=DataConfig(batch_size=16, seq_len=256),
        steps=STEPS[setting],
        model=MODEL,
        optimizer=optimizer(3e-3, 30),
        compute=Compute(scan_layers=False),
        checkpoint_every=100,
        log_every=20,
    )
    arm = TrainConfig(
        out="",
        data=DataConfig(batch_size=0, seq_len=256, examples_per_step=24),
        epochs=1,
        optimizer=optimizer(3e-4, 10),
        compute=Compute(scan_layers=False),
        checkpoint_every=25,
    )
    return StudyConfig(
        out="runs/study_arithmetic",
        task="arithmetic",
        pretraining=Pretraining(student, tokenizer_ids=1536),
        attempts=Attempts(questions=2500, temperature=0.7, max_new_tokens=128),
        arms=("cot", "cot_part", "cot_plus_extracted", "lema"),
        seeds=(0, 1, 2),
        mix=Mix(equal="examples", amount=1500, max_tokens=256, questions=2500, own_attempts=True),
        training=arm,
        tests=(Test("arithmetic", "test", 1000),),
        max_new_tokens=128,
        batch_size=128,
    )
