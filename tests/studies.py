"""A study on a model too small to learn, for tests: its configuration."""

from pathlib import Path
from typing import Any

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.planning.config import Attempts, Mix, Pretraining, StudyConfig, Test
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig

LLAMA = LlamaConfig(
    vocab_size=800,
    hidden_size=64,
    intermediate_size=64,
    num_layers=1,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
    max_positions=512,
)


def small(out: Path | str = "study", **changes: Any) -> StudyConfig:
    """Two arms, two seeds, twelve questions; seconds of work."""
    student = TrainConfig(
        out="",
        data=DataConfig(batch_size=8, seq_len=256),
        steps=40,
        model=LLAMA,
        optimizer=OptimizerConfig(learning_rate=0.01),
        compute=Compute(scan_layers=False),
    )
    arm = TrainConfig(
        out="",
        data=DataConfig(batch_size=0, seq_len=512, examples_per_step=8),
        epochs=1,
        compute=Compute(scan_layers=False),
    )
    fields: dict[str, Any] = {
        "out": str(out),
        "task": "arithmetic",
        "pretraining": Pretraining(student, tokenizer_ids=800, questions=300),
        "attempts": Attempts(questions=40, max_new_tokens=64),
        "arms": ("cot", "lema"),
        "seeds": (0, 1),
        "mix": Mix(amount=24, questions=100),
        "training": arm,
        "tests": (Test("arithmetic", "test", 12),),
        "max_new_tokens": 48,
        "batch_size": 16,
    }
    return StudyConfig(**(fields | changes))
