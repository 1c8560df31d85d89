"""Training in several processes: the rows that each one reads, and preemption at a step that all agree on."""

import os
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from lema_jax import interrupts


def rows(sharding: NamedSharding, shape: tuple[int, ...]) -> slice:
    """The rows (first axis) of a global array that this process's devices store."""
    shards = sharding.addressable_devices_indices_map(shape).values()
    spans = [shard[0].indices(shape[0]) for shard in shards if shard is not None]
    return slice(min(start for start, *_ in spans), max(stop for _, stop, _ in spans))


class Preemption:
    """Turns a preemption signal (SIGTERM) or Ctrl-C into a step after which every process stops.

    `number`: the signal that this process got; SIGTERM if another process got one.
    """

    def __init__(self) -> None:
        self.number: int = signal.SIGTERM
        self._alone = jax.process_count() == 1
        self._signalled = False
        # With several processes JAX handles SIGTERM and informs the others; other signals are turned into SIGTERM.
        signals = interrupts.SIGNALS if self._alone else (signal.SIGINT, signal.SIGHUP)
        message = "stopping after this step is saved (again to end at once, at the last checkpoint)"
        self._handler = interrupts.heeded(self._on_signal, message, signals)

    def __enter__(self) -> "Preemption":
        self._handler.__enter__()
        return self

    def __exit__(self, kind: Any, *exc: Any) -> None:
        self._handler.__exit__(kind, *exc)
        if kind is None:
            interrupts.forget()

    def stops_at(self, step: int) -> bool:
        """Whether to save and stop after this step: the same in every process. All must call it at every step."""
        return self._signalled if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def _on_signal(self, number: int) -> None:
        self.number, self._signalled = number, True
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
