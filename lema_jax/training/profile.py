"""A profiler's trace of a few steps, where one is asked for."""

import contextlib
from typing import Any

import jax

SKIP, STEPS = 2, 3  # the first steps of a run are slower than the others


class Profile:
    """Traces steps SKIP + 1 … SKIP + STEPS of this start into `folder` (TensorBoard and Perfetto read it)."""

    def __init__(self, folder: str, first: int) -> None:
        self._folder, self._first = folder, first
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.close()

    def before(self, step: int) -> None:
        """Starts or ends the trace; called before each step, with the run's own count."""
        if not self._folder:
            return
        if step == self._first + SKIP + 1:
            self._stack.enter_context(jax.profiler.trace(self._folder))
        elif step == self._first + SKIP + STEPS + 1:
            self._stack.close()
            print(f"trace of {STEPS} steps written to {self._folder}", flush=True)
