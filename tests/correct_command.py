"""The correct command, in this process and in one of its own, and wrong attempts for it: what its tests share."""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lema_jax import correct, records, tasks
from lema_jax.records import Attempt, Correction, Problem, Verdict
from tests import commands

ENVIRONMENT = os.environ | commands.ENDPOINT  # of a process of its own

succeeds = functools.partial(commands.succeeds, correct.command)
fails = functools.partial(commands.fails, correct.command)


def command(*flags: object) -> list[str]:
    return [sys.executable, "-m", "lema_jax.correct", *map(str, flags)]


@functools.cache
def problems() -> list[Problem]:
    return tasks.get("arithmetic").load("train")


def attempt(number: int) -> Attempt:
    """A wrong attempt at problem `number`: its last sum, or its answer, is one too much."""
    problem = problems()[number]
    right = tasks.get("arithmetic").completion(problem)
    text = right.replace(f"= {problem.gold}", f"= {int(problem.gold) + 1}")
    text = text.replace(f"answer is {problem.gold}", f"answer is {int(problem.gold) + 1}")
    answer, verdict = tasks.grade(problem, text, truncated=False)
    assert verdict is Verdict.WRONG
    return Attempt(
        id=f"a{number}", problem=problem, student="s", sampling={}, prompt="p", text=text, answer=answer,
        verdict=verdict, prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


def write_attempts(path: Path, count: int, *others: Attempt) -> Path:
    records.write(path, [*(attempt(number) for number in range(count)), *others])
    return path


def not_wrong(verdict: Verdict) -> Attempt:
    return attempt(0).model_copy(update={"id": verdict.value, "verdict": verdict})


def corrections(path: Path) -> list[Correction]:
    return list(records.read(path, Correction))


def kill_when(reached: Callable[[], bool], *flags: object, after: float = 0.0) -> None:
    """Starts the command, waits until `reached()` (and a moment more), and kills it as kill -9 does."""
    process = subprocess.Popen(command(*flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT)
    while process.poll() is None and not reached():
        time.sleep(0.002)
    time.sleep(after)
    process.kill()
    process.communicate()
