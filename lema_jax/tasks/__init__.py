"""The benchmarks, one file each. `get(name)` returns a task: a module (or an object) with the functions of `Task`.

No JAX here: a task is a loader, a prompt and a grader.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from lema_jax.errors import UserError
from lema_jax.records import Problem, Verdict
from lema_jax.tasks import thinking

NAMES = (
    *("aime", "arithmetic", "asdiv", "csqa", "gsm1k", "gsm8k", "gsm8k_platinum", "gsm_plus", "gsm_symbolic", "math"),
    "svamp",
)
OWN = "jsonl:"  # begins the name of a user's own task
LISTED = f"{', '.join(NAMES)}, or jsonl:PATH for a file of your own"


class Task(Protocol):
    """The interface of a task module."""

    SPLITS: Sequence[str]

    def load(self, split: str, data_dir: Path | None = None) -> list[Problem]:
        """The problems of a split, in the publisher's order, each with a stable id `task/split/number`."""

    def prompt(self, problem: Problem) -> str:
        """The zero-shot chain-of-thought prompt (the paper's, byte for byte)."""

    def completion(self, problem: Problem) -> str:
        """The gold rationale as a chain of thought: one step a line, the last `The answer is {gold}.`"""

    def extract(self, text: str, problem: Problem) -> str | None:
        """The final answer that a reasoning path states, or None when none can be parsed."""

    def same(self, answer: str, gold: str) -> bool:
        """Whether an extracted answer equals the gold one: the robust verdict."""

    def official_grader(self, text: str, problem: Problem) -> bool:
        """The verdict of the authors' released grader on a reasoning path, bugs included: comparable with the paper."""


def get(name: str) -> Task:
    """The task of that name, or of a user's own file: `jsonl:PATH`.

    Raises:
      UserError: no such task; the message lists the tasks.
    """
    if name.startswith(OWN):
        from lema_jax.tasks.jsonl import JsonlTask  # imports tasks, which import this module

        return JsonlTask(Path(name.removeprefix(OWN)))
    if name not in NAMES:
        raise UserError(f"no task {name!r}; choose one of {LISTED}")
    return cast(Task, importlib.import_module(f"lema_jax.tasks.{name}"))


def is_same(one: str, other: str) -> bool:
    """Whether two names are of one task: a user's own file may be named by several paths."""
    return one == other or (
        one.startswith(OWN)
        and other.startswith(OWN)
        and os.path.realpath(one.removeprefix(OWN)) == os.path.realpath(other.removeprefix(OWN))
    )


def grade(problem: Problem, text: str, *, truncated: bool) -> tuple[str | None, Verdict]:
    """The extracted answer of `text` and its verdict. `truncated`: generation stopped at the token limit.

    A truncated text that states the right answer is RIGHT; any other is TRUNCATED, never WRONG: it is no mistake to
    learn from. A text that ends inside its thinking is truncated and states no answer.
    """
    task = get("csqa" if problem.choices else problem.task)
    said = thinking.spoken(text)
    if not said.finished:
        return None, Verdict.TRUNCATED
    answer = task.extract(_without_torn_end(said.text) if truncated else said.text, problem)
    if answer is not None and task.same(answer, problem.gold):
        return answer, Verdict.RIGHT
    if truncated:
        return answer, Verdict.TRUNCATED
    return answer, Verdict.UNPARSED if answer is None else Verdict.WRONG


def _without_torn_end(text: str) -> str:
    """A truncated text without its last word, which may be incomplete (the 2 of 204), and without a number that is then
    alone on the last line, which may be the label of the next step."""
    text = text[: max(text.rfind(" "), text.rfind("\n")) + 1]
    before, newline, last = text.rpartition("\n")
    return text if any(map(str.isalpha, last)) else before + newline
