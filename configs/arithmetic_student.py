"""A 1.7 M-parameter LLaMA from random weights on the arithmetic task, of which it learns to answer a third to a half.

python -m lema_jax.train --config=configs/arithmetic_student.py --config.data.path=… --config.out=…
"""

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        out="runs/quickstart/student",
        data=DataConfig(path="runs/quickstart/data_student", batch_size=4, seq_len=256),
        steps=1400,
        model=LlamaConfig(
            vocab_size=1536,
            hidden_size=256,
            intermediate_size=512,
            num_layers=2,
            num_heads=4,
            num_kv_heads=4,
            head_dim=64,
            max_positions=512,
            tie_embeddings=True,
        ),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, schedule="cosine", warmup_steps=60, beta2=0.98, weight_decay=0.1, clip_norm=1.0
        ),
        compute=Compute(scan_layers=False),
        checkpoint_every=200,
        log_every=20,
    )
