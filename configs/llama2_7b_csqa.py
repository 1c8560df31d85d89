"""LLaMA-2-7B on CommonsenseQA by QLoRA, as in the paper."""

from lema_jax.training import paper
from lema_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
    return paper.qlora("llama2-7b", "csqa")
