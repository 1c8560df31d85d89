"""One arm of the comparison on the arithmetic task: the student trains on, on chain of thought or with corrections.

Rows hold one example each (no packing), so that both arms see the same number of examples at every step.

    python -m lema_jax.train --config=configs/arithmetic_arm.py --config.data.path=… --config.out=…
"""

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        out="runs/quickstart/lema",
        init="runs/quickstart/student",
        data=DataConfig(path="runs/quickstart/data_lema", batch_size=16, seq_len=384, packing=False),
        steps=63,
        optimizer=OptimizerConfig(
            learning_rate=1e-4, schedule="cosine", warmup_steps=10, beta2=0.98, weight_decay=0.1, clip_norm=1.0
        ),
        compute=Compute(scan_layers=False),
        checkpoint_every=50,
    )
