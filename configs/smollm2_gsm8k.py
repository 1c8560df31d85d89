"""SmolLM2-135M on GSM8K with adapters (rank 64 on all linear layers), sized for two CPU cores.

python -m lema_jax.train --config=configs/smollm2_gsm8k.py --config.data.path=… --config.out=…
"""

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig


def get_config() -> TrainConfig:
    return TrainConfig(
        out="runs/smollm2/lema",
        init="runs/smollm2/base",
        data=DataConfig(path="runs/smollm2/data_lema", batch_size=2, seq_len=512),
        steps=30,
        lora=LoraConfig(rank=64, alpha=16.0, dropout=0.05),  # the paper's
        optimizer=OptimizerConfig(learning_rate=2e-4, clip_norm=0.3),  # the paper's below 34B
        compute=Compute(scan_layers=False),
        log_every=1,
        checkpoint_every=10,
    )
