"""Several processes that train as one: which rows each reads, and a stop that all agree on."""

import os
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from lema_jax import interrupts


def rows(sharding: NamedSharding, shape: tuple[int, ...]) -> slice:
    """The rows (first axis) of a global array of which this process's devices hold any part."""
    parts = sharding.addressable_devices_indices_map(shape).values()
    spans = [part[0].indices(shape[0]) for part in parts if part is not None]
    return slice(min(start for start, *_ in spans), max(stop for _, stop, _ in spans))


class Preemption:
    """Turns SIGTERM, the notice that a machine will be taken away, and Ctrl-C into a step at which every process stops.

    `number`: the signal that this process got; SIGTERM where it was another that got one.
    """

    def __init__(self) -> None:
        self.number: int = signal.SIGTERM
        self._alone = jax.process_count() == 1
        self._noticed = False
        # Among several, JAX's own handler of SIGTERM tells the others, and the other signals become that one.
        signals = interrupts.SIGNALS if self._alone else (signal.SIGINT, signal.SIGHUP)
        saying = "stopping: the step under way is finished and saved (again to end at once, at the last checkpoint)"
        self._heeded = interrupts.heeded(self._notice, saying, signals)

    def __enter__(self) -> "Preemption":
        self._heeded.__enter__()
        return self

    def __exit__(self, kind: Any, *exc: Any) -> None:
        self._heeded.__exit__(kind, *exc)
        if kind is None:
            interrupts.forget()

    def stops_at(self, step: int) -> bool:
        """Whether to save and stop after this step; every process asks at every step and gets the same answer."""
        return self._noticed if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def _notice(self, number: int) -> None:
        self.number, self._noticed = number, True
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
