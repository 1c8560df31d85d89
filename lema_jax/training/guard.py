"""Stops a run whose numbers are no longer numbers."""

import sys

import jax
import numpy as np

from lema_jax.errors import UserError
from lema_jax.training.config import GuardConfig


class Guard:
    """Looks at every step's loss and gradient norm. The step itself has left an ill update out; see `train_step`."""

    def __init__(self, config: GuardConfig, data: str):
        self._config, self._data, self._in_a_row = config, data, 0

    def check(self, step: int, metrics: dict[str, np.ndarray], records: np.ndarray) -> None:
        """Passes over an ill step with a warning, as often as the configuration allows.

        Args:
          records: which examples this process's rows held.

        Raises:
          UserError: one ill step too many.
        """
        if not metrics["ill"]:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        lines = ", ".join(str(number + 1) for number in np.unique(records))
        said = (
            f"step {step}: loss {metrics['loss']:.4g}, gradient norm {metrics['grad_norm']:.4g} "
            f"(guard.max_grad_norm={self._config.max_grad_norm:g}); its update was left out. Its examples: "
            f"lines {lines} of {self._data}/examples.jsonl"
        )
        if self._in_a_row > self._config.skip_steps:
            raise UserError(
                f"{said}. The checkpoints before it are whole: look at those examples, lower "
                "optimizer.learning_rate or set guard.skip_steps, and run again"
            )
        if jax.process_index() == 0:
            print(f"warning: {said}", file=sys.stderr)
