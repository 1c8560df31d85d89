"""A child process for code that may hang, crash or exhaust memory: it answers JSON lines and can be killed."""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any

_SECONDS_TO_START = 120.0
_LONGEST_ANSWER = 1 << 26  # bytes


class Ended(Exception):
    """The process died, exceeded its time, or wrote too much; the next question starts a new one."""


class NotStarted(Exception):
    """The process does not start."""


class Worker:
    """One process, started at the first question and again after each one that ended it. Threads take turns.

    Args:
      module: run as `python -m MODULE ARGUMENTS`; writes one line of JSON for each line of JSON that it reads.
      first: a question that it answers as soon as it is ready.
    """

    def __init__(self, module: str, *arguments: str, first: Any):
        self._command = [sys.executable, "-m", module, *arguments]
        self._first = first
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, question: Any, seconds: float) -> Any:
        """The answer, waited for `seconds` of the clock.

        Raises:
          Ended, NotStarted: see there.
        """
        with self._lock:
            if self._process is None:
                self._process = self._start()
            try:
                return _exchange(self._process, question, seconds)
            except Ended:
                self._end()
                raise

    def close(self) -> None:
        """Ends the process, if there is one."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C goes to the caller alone, which may have answers to save
            env=_environment(),
        )
        try:
            _exchange(process, self._first, _SECONDS_TO_START)
        except Ended:
            process.kill()
            raise NotStarted from None
        return process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _environment() -> dict[str, str]:
    """This process's, without its keys, which code of others is not to see; modules are found where they are here."""
    own = {
        name: value for name, value in os.environ.items() if not name.upper().endswith(("_KEY", "_TOKEN", "_SECRET"))
    }
    return own | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _exchange(process: subprocess.Popen[bytes], question: Any, seconds: float) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
    except OSError:
        raise Ended from None
    ends, line = time.monotonic() + seconds, bytearray()
    descriptor = process.stdout.fileno()
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, ends - time.monotonic()))
        part = os.read(descriptor, 1 << 16) if ready else b""
        if not part or len(line) + len(part) > _LONGEST_ANSWER:
            raise Ended
        line += part
    return json.loads(line)
