"""LLaMA-2-70B on MATH, all weights, as in the paper."""

from lema_jax.training import paper
from lema_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
    return paper.full("llama2-70b", "math")
