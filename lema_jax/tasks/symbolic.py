"""Symbolic equality by a computer algebra system (math-verify, SymPy), in a process that can be killed.

No text can hang or crash the caller. The worker has a limit of processor time for each question, so that a verdict does
not depend on how busy the machine is, and a limit of memory. A question that exceeds either stays open (None).
"""

import functools
import json
import logging
import resource
import signal
import sys
from typing import IO, Any

from lema_jax.errors import UserError
from lema_jax.worker import Ended, NotStarted, Worker

_SECONDS = 3.0  # of a processor, for one question
_PATIENCE = 20  # seconds of the clock to wait for each of them: many processes may share a processor
_MOST_MEMORY = 4 << 30  # bytes
_LONGEST_ALONE = 60  # seconds after which a worker without a caller ends itself
_LONGEST = 1_000  # characters
_DIGITS = 13  # to which two floating-point numbers must agree to be equal


def same(answer: str, gold: str) -> bool | None:
    """Whether a computer algebra system finds the two LaTeX answers equal; None if it cannot parse or decide.

    Raises:
      UserError: the worker cannot be started.
    """
    if not all(_fit(text) for text in (answer, gold)):
        return None
    try:
        return _worker(_SECONDS).ask([answer, gold], _SECONDS * _PATIENCE)
    except Ended:
        return None
    except NotStarted:
        raise UserError("symbolic equality needs the package math-verify, which does not start") from None


@functools.cache
def _worker(seconds: float) -> Worker:
    return Worker("lema_jax.tasks.symbolic", str(seconds), first=["1", "1"])


def _fit(text: str) -> bool:
    """Whether to ask about a text at all: it is short, balanced and printable."""
    return len(text) <= _LONGEST and text.count("{") == text.count("}") and "".join(text.split()).isprintable()


def _serve(questions: IO[str], verdicts: IO[str], seconds: float) -> None:
    """Answers `[answer, gold]` lines by `true`, `false` or `null` until the input ends or a question takes too long."""
    import math_verify  # slow to import: in the worker only

    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    _verify(math_verify, "x > 3", "(3, \\infty)")  # triggers the lazy imports
    for line in questions:
        signal.alarm(_LONGEST_ALONE)  # the caller may be dead
        answer, gold = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # the signal ends the process
        verdict = _verify(math_verify, answer, gold)
        signal.setitimer(signal.ITIMER_PROF, 0)
        verdicts.write(json.dumps(verdict) + "\n")
        verdicts.flush()
        signal.alarm(0)


def _verify(math_verify: Any, answer: str, gold: str) -> bool | None:
    try:
        # Its own time-outs use signals: the caller's clock replaces them. Some equalities hold in one order only.
        one, other = (math_verify.parse(f"${text}$", parsing_timeout=None) for text in (gold, answer))
        orders = ((one, other), (other, one))
        if not one or not other:
            return None
        return any(math_verify.verify(*pair, float_rounding=_DIGITS, timeout_seconds=None) for pair in orders)
    except Exception:  # it may raise anything on a model's text
        return None


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout, float(sys.argv[1]))
