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
_LONGEST_ALONE = 60  # seconds after which a worker ends itself in the middle of a question
_LONGEST = 1_000  # characters
_DIGITS = 13  # to which two numbers agree that are equal: what floating point can tell


def same(answer: str, gold: str) -> bool | None:
    """Whether a computer algebra system finds the two LaTeX answers equal; None when it cannot read or tell.

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
    """Whether it is worth a question: neither long nor unbalanced nor binary."""
    return len(text) <= _LONGEST and text.count("{") == text.count("}") and "".join(text.split()).isprintable()


def _serve(questions: IO[str], verdicts: IO[str], seconds: float) -> None:
    """Answers `[answer, gold]` lines by `true`, `false` or `null` until the input ends or a question takes too long."""
    import math_verify  # here, since it takes seconds that only a worker need spend

    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    _verify(math_verify, "x > 3", "(3, \\infty)")  # loads what is loaded at need
    for line in questions:
        signal.alarm(_LONGEST_ALONE)  # a caller that was killed ends nothing any more
        answer, gold = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # the signal ends the process
        verdict = _verify(math_verify, answer, gold)
        signal.setitimer(signal.ITIMER_PROF, 0)
        verdicts.write(json.dumps(verdict) + "\n")
        verdicts.flush()
        signal.alarm(0)


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
