"""Symbolic equality by a computer algebra system (math-verify, SymPy), in a process that can be killed.

No text can hang or crash the caller: the worker has a limit of processor time for each question, so that a verdict does
not depend on how busy the machine is, and a limit of memory; one that exceeds either is ended, its question stays open
(None), and the next question gets a new worker.
"""

import atexit
import functools
import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from typing import IO, Any

from lema_jax.errors import UserError

_SECONDS = 3.0  # of a processor, for one question
_PATIENCE = 20  # seconds of the clock that are waited for each of them: many processes may share a processor
_SECONDS_TO_START = 120.0
_MOST_MEMORY = 4 << 30  # bytes
_LONGEST = 1_000  # characters
_DIGITS = 13  # to which two numbers agree that are equal: what floating point can tell


def same(answer: str, gold: str) -> bool | None:
    """Whether a computer algebra system finds the two LaTeX answers equal; None when it cannot read or tell.

    Raises:
      UserError: the worker cannot be started.
    """
    if not all(_fit(text) for text in (answer, gold)):
        return None
    return _shared_worker().ask(answer, gold)


def _fit(text: str) -> bool:
    """Whether it is worth a question: neither long nor unbalanced nor binary."""
    return len(text) <= _LONGEST and text.count("{") == text.count("}") and "".join(text.split()).isprintable()


class Worker:
    """One worker process, started at the first question and again after each that had to be ended."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, answer: str, gold: str) -> bool | None:
        """As `same`, within the worker's seconds."""
        with self._lock:
            if self._process is None:
                self._process = self._start()
            try:
                return _exchange(self._process, [answer, gold], self._seconds * _PATIENCE)
            except _Ended:
                self._end()
                return None

    def close(self) -> None:
        """Ends the process, if there is one."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lema_jax.tasks.symbolic", str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )
        try:
            _exchange(process, ["1", "1"], _SECONDS_TO_START)
        except _Ended:
            process.kill()
            raise UserError("symbolic equality needs the package math-verify, which does not start") from None
        return process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@functools.cache
def _shared_worker() -> Worker:
    worker = Worker(_SECONDS)
    atexit.register(worker.close)
    return worker


class _Ended(Exception):
    """The worker has ended, or does not answer in time."""


def _exchange(process: subprocess.Popen[bytes], question: list[str], seconds: float) -> bool | None:
    questions, verdicts = process.stdin, process.stdout
    assert questions is not None
    assert verdicts is not None
    try:
        questions.write(json.dumps(question).encode() + b"\n")
        questions.flush()
    except OSError:
        raise _Ended from None
    ready, _, _ = select.select([verdicts], [], [], seconds)
    line = verdicts.readline() if ready else b""
    if not line.endswith(b"\n"):
        raise _Ended
    return json.loads(line)


def _serve(questions: IO[str], verdicts: IO[str], seconds: float) -> None:
    """Answers `[answer, gold]` lines by `true`, `false` or `null` until the input ends or a question takes too long."""
    import math_verify  # here, since it takes seconds that only a worker need spend

    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    _verify(math_verify, "x > 3", "(3, \\infty)")  # loads what is loaded at need
    for line in questions:
        answer, gold = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # the signal ends the process
        verdict = _verify(math_verify, answer, gold)
        signal.setitimer(signal.ITIMER_PROF, 0)
        verdicts.write(json.dumps(verdict) + "\n")
        verdicts.flush()


def _verify(math_verify: Any, answer: str, gold: str) -> bool | None:
    try:
        # Its own time-outs work by signals; the caller's clock serves here. Some equalities it sees in one order alone.
        one, other = (math_verify.parse(f"${text}$", parsing_timeout=None) for text in (gold, answer))
        orders = ((one, other), (other, one))
        if not one or not other:
            return None
        return any(math_verify.verify(*pair, float_rounding=_DIGITS, timeout_seconds=None) for pair in orders)
    except Exception:  # whatever it raises on a model's text, the question stays open
        return None


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout, float(sys.argv[1]))
