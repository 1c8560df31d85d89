"""LLaMA-2-13B on GSM8K by QLoRA, as in the paper."""

from lema_jax.training import paper
from lema_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
    return paper.qlora("llama2-13b", "gsm8k")
