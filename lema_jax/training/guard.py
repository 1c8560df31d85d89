"""Stops a run whose loss or gradient is not finite, or whose chosen completions become unlikely."""

import sys

import jax
import numpy as np

from lema_jax.errors import UserError
from lema_jax.training.config import GuardConfig


class Guard:
    """Checks every step's loss and gradient norm. The step itself skips a non-finite update; see `train_step`."""

    def __init__(self, config: GuardConfig, data: str) -> None:
        self._config, self._data, self._in_a_row = config, data, 0

    def check(self, step: int, metrics: dict[str, np.ndarray], records: np.ndarray) -> None:
        """Warns of a non-finite step, and checks how far chosen completions have fallen.

        Args:
          metrics: of `train_step`.
          records: the numbers of the examples in this process's rows.

        Raises:
          UserError: more than `skip_steps` of them in a row, or a fall beyond `max_chosen_fall`.
        """
        bound, fall = self._config.max_chosen_fall, float(metrics.get("chosen_fall", 0.0))
        if bound and fall > bound:
            raise UserError(
                f"step {step}: the chosen completions are {fall:.3g} nats a token less likely than by the reference, "
                f"above guard.max_chosen_fall={bound:g}: the model unlearns them. The checkpoints before it are good; "
                "begin in another out with a larger preference.nll_weight or preference.beta, or a lower "
                "optimizer.learning_rate, or go on with a larger guard.max_chosen_fall (0 for none)"
            )
        if not metrics["skipped"]:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        lines = ", ".join(str(number + 1) for number in np.unique(records))
        message = (
            f"step {step}: loss {metrics['loss']:.4g}, gradient norm {metrics['grad_norm']:.4g} "
            f"(guard.max_grad_norm={self._config.max_grad_norm:g}); its update was skipped. Its examples: "
            f"lines {lines} of {self._data}/examples.jsonl"
        )
        if self._in_a_row > self._config.skip_steps:
            raise UserError(
                f"{message}. The checkpoints before it are good: look at those examples, lower "
                "optimizer.learning_rate or set guard.skip_steps, and run again"
            )
        if jax.process_index() == 0:
            print(f"warning: {message}", file=sys.stderr)
