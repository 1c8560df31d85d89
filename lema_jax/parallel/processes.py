"""Several processes that train as one: which rows each reads, and a stop that all agree on."""

import signal
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding


def rows(sharding: NamedSharding, shape: tuple[int, ...]) -> slice:
    """The rows (first axis) of a global array of which this process's devices hold any part."""
    parts = sharding.addressable_devices_indices_map(shape).values()
    spans = [part[0].indices(shape[0]) for part in parts if part is not None]
    return slice(min(start for start, *_ in spans), max(stop for _, stop, _ in spans))


class Preemption:
    """Turns SIGTERM, the notice that a machine will be taken away, into a step at which every process stops."""

    def __init__(self) -> None:
        self._noticed = False

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:  # among several, JAX's own handler tells the others
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *exc: Any) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def stops_at(self, step: int) -> bool:
        """Whether to save and stop after this step; every process asks at every step and gets the same answer."""
        return self._noticed if jax.process_count() == 1 else multihost_utils.reached_preemption_sync_point(step)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._noticed = True
