"""AdamW with the paper's settings as defaults."""

import dataclasses
from typing import Any

import jax
import optax

from lema_jax import ranges

SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass
class OptimizerConfig:
    """Defaults are the paper's QLoRA runs below 34B parameters (the released script; 1e-4 from 34B on)."""

    learning_rate: float = ranges.within(2e-4, 0, 10)
    schedule: str = "constant"  # or "cosine": to zero after the last step, whichever updates were skipped
    warmup_steps: int = ranges.within(0, 0, 10**9)  # linear, from zero
    beta1: float = ranges.within(0.9, 0, 1, below=True)
    beta2: float = ranges.within(0.999, 0, 1, below=True)
    epsilon: float = ranges.within(1e-8, 0, 1, above=True)
    weight_decay: float = ranges.within(0.01, 0, 10)  # on matrices; not on norm scales and biases
    clip_norm: float = ranges.within(0.3, 0, 1e6)  # global norm of the gradient; 0 for no clipping

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = ranges.problems(self)
        if self.schedule not in SCHEDULES:
            found.append(f"schedule={self.schedule!r} must be one of {', '.join(SCHEDULES)}")
        return found


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step, for a run of `steps` steps."""
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    if config.schedule == "cosine":
        rest = optax.cosine_decay_schedule(config.learning_rate, max(1, steps - config.warmup_steps))
    else:
        rest = optax.constant_schedule(config.learning_rate)
    return optax.join_schedules([warmup, rest], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW (decoupled decay) behind a global-norm clip."""

    def decayed(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: not _is_vector(jax.tree_util.keystr(path)), tree)

    adamw = optax.adamw(
        schedule,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw) if config.clip_norm else adamw


def at_step(state: optax.OptState, step: jax.Array) -> optax.OptState:
    """The optimizer's state with the learning rate of `step`: optax's own count lacks the updates that were skipped."""
    counts = lambda node: isinstance(node, optax.ScaleByScheduleState)  # none where the rate is a number
    now = optax.ScaleByScheduleState(step)
    return jax.tree.map(lambda node: now if counts(node) else node, state, is_leaf=counts)


def _is_vector(path: str) -> bool:
    return "scale" in path or "bias" in path
