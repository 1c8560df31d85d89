"""AdamW with the paper's settings as defaults."""

import dataclasses
from typing import Any

import jax
import optax

SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass
class OptimizerConfig:
    """Defaults are the paper's QLoRA runs below 34B parameters (the released script; 1e-4 from 34B on)."""

    learning_rate: float = 2e-4
    schedule: str = "constant"  # or "cosine": to zero at the last step
    warmup_steps: int = 0  # linear, from zero
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01  # on matrices; not on norm scales and biases
    clip_norm: float = 0.3  # global norm of the gradient; 0 for no clipping

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = []
        if self.schedule not in SCHEDULES:
            found.append(f"schedule={self.schedule!r} must be one of {', '.join(SCHEDULES)}")
        if self.learning_rate < 0:
            found.append(f"learning_rate={self.learning_rate} must not be negative")
        if self.clip_norm < 0:
            found.append(f"clip_norm={self.clip_norm} must not be negative; 0 turns clipping off")
        return found


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step, for a run of `steps` steps."""
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    if config.schedule == "cosine":
        rest = optax.cosine_decay_schedule(config.learning_rate, max(1, steps - config.warmup_steps))
    else:
        rest = optax.constant_schedule(config.learning_rate)
    return optax.join_schedules([warmup, rest], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW (decoupled decay) behind a global-norm clip."""

    def decayed(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: not _is_vector(jax.tree_util.keystr(path)), tree)

    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def _is_vector(path: str) -> bool:
    return "scale" in path or "bias" in path
