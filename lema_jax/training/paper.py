"""The paper's training runs by name (arXiv 2310.20689, appendix, and the authors' released script).

The files of `configs/` that are named after a model and a task call these. What neither source states is said so; any
field can be overridden as usual.
"""

from collections.abc import Mapping
from typing import TypeVar

from lema_jax.data.batches import DataConfig
from lema_jax.errors import UserError
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig

Number = TypeVar("Number", int, float)

# Tokens of a row: prompt + completion. CSQA's are not stated; GSM8K's hold its longest example.
_SEQ_LEN = {"gsm8k": 512 + 512, "math": 768 + 768, "csqa": 512 + 512}
# By QLoRA: learning rates 2e-4 below 34B parameters, 1e-4 from there on.
_LEARNING_RATE = {
    "llama2-7b": 2e-4,
    "llama2-13b": 2e-4,
    "codellama-34b": 1e-4,
    "llama-65b": 1e-4,
    "llama2-70b": 1e-4,
}
_EPOCHS = {"llama2-70b": 3, "llemma-34b": 2}  # of full fine-tuning


def qlora(model: str, task: str) -> TrainConfig:
    """Adapters on nf4 kernels: every run of the paper but the fully fine-tuned ones.

    Raises:
      UserError: a model or task that the paper does not train so.
    """
    return TrainConfig(
        out=f"runs/{model}_{task}".replace("-", "_"),
        init=f"models/{model}",
        data=_data(task, batch_size=96),
        steps=2000,  # the released script has 1,000
        lora=LoraConfig(rank=64, alpha=16.0, dropout=0.05, base="nf4"),  # every linear layer but the head
        optimizer=OptimizerConfig(
            learning_rate=_known(_LEARNING_RATE, model, "model"),
            schedule="constant",
            warmup_steps=0,
            beta1=0.9,  # torch's; not stated
            beta2=0.999,
            weight_decay=0.01,
            clip_norm=0.3,
        ),
        compute=Compute(dtype="bfloat16", param_dtype="bfloat16", remat="full"),  # gradient checkpointing
        seed=0,
        checkpoint_every=100,
    )


def full(model: str, task: str) -> TrainConfig:
    """All weights: the paper's larger runs on MATH with correction-centric evolution.

    The optimizer but for its learning rate, and the lengths, are not stated; they are those of the other runs, without
    QLoRA's tight clip.

    Raises:
      UserError: a model or task that the paper does not train so.
    """
    return TrainConfig(
        out=f"runs/{model}_{task}_full".replace("-", "_"),
        init=f"models/{model}",
        data=_data(task, batch_size=128),
        epochs=_known(_EPOCHS, model, "model"),
        optimizer=OptimizerConfig(learning_rate=1e-5, weight_decay=0.01, clip_norm=1.0),
        compute=Compute(dtype="bfloat16", param_dtype="float32", remat="full"),
        seed=0,
        checkpoint_every=100,
    )


def _data(task: str, batch_size: int) -> DataConfig:
    # One example to a row, as the authors padded them: a batch is then as many examples as they say. Packed, a row of
    # GSM8K holds about six: with packing=True, examples_per_step=batch_size needs about a fifth of the rows.
    seq_len = _known(_SEQ_LEN, task, "task")
    return DataConfig(path=f"data/{task}_lema", batch_size=batch_size, seq_len=seq_len, packing=False, seed=0)


def _known(table: Mapping[str, Number], name: str, what: str) -> Number:
    if name not in table:
        raise UserError(f"the paper has no such run of {what} {name!r}; it has {', '.join(table)}")
    return table[name]
