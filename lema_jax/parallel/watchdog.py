"""Reports a run that hangs: a device, a network or another process can block it silently."""

import datetime
import sys
import threading
from typing import Any

MINUTES = 10.0


class Watchdog:
    """Inside, prints a line to stderr after every `minutes` without a call of `alive`.

    Args:
      what: what is awaited, such as "step".
    """

    def __init__(self, what: str, minutes: float | None = None):
        self._what, self._minutes = what, MINUTES if minutes is None else minutes
        self._came, self._ended, self._last = threading.Event(), False, ""

    def __enter__(self) -> "Watchdog":
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._ended = True
        self._came.set()
        self._thread.join()

    def alive(self, last: object) -> None:
        """Reports progress; `last` names it in the next message."""
        self._last = f" after {last}"
        self._came.set()

    def _watch(self) -> None:
        silent = 0.0
        while True:
            if self._came.wait(60 * self._minutes):
                silent = 0.0
                self._came.clear()
                if self._ended:
                    return
                continue
            silent += self._minutes
            print(
                f"{datetime.datetime.now():%H:%M:%S}: no {self._what}{self._last} for {silent:g} minutes; if it takes "
                "no processor time either (see top), end it with Ctrl-C twice and run the same command again",
                file=sys.stderr,
                flush=True,
            )
