"""The benchmarks, one file each. `get(name)` gives a task: a module (or an object) with the functions of `Task`.

No JAX here: a task serves anyone as a loader, a prompt and a grader.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from lema_jax.errors import UserError
from lema_jax.records import Problem, Verdict
from lema_jax.tasks import thinking

NAMES = ("arithmetic", "asdiv", "csqa", "gsm8k", "math", "svamp")
LISTED = f"{', '.join(NAMES)}, or jsonl:PATH for a file of your own"


class Task(Protocol):
    """What a task module offers."""

    SPLITS: Sequence[str]

    def load(self, split: str, data_dir: Path | None = None) -> list[Problem]:
        """The problems of a split, in the publisher's order, each with a stable id `task/split/number`."""

    def prompt(self, problem: Problem) -> str:
        """The zero-shot chain-of-thought prompt (the paper's, byte for byte)."""

    def completion(self, problem: Problem) -> str:
        """The gold rationale as a chain of thought: one step a line, the last `The answer is {gold}.`"""

    def extract(self, text: str, problem: Problem) -> str | None:
        """The final answer that a reasoning path states, or None when none can be read."""

    def same(self, answer: str, gold: str) -> bool:
        """Whether an extracted answer equals the gold one: the robust verdict."""

    def paper(self, text: str, problem: Problem) -> bool:
        """The verdict of the authors' released grader on a whole text, faults and all, to compare with the paper."""


def get(name: str) -> Task:
    """The task of that name, or that of a user's own file: `jsonl:PATH`.

    Raises:
      UserError: no such task; the message lists those there are.
    """
    if name.startswith("jsonl:"):
        from lema_jax.tasks.jsonl import JsonlTask  # it stands on tasks, which stand on this

        return JsonlTask(Path(name.removeprefix("jsonl:")))
    if name not in NAMES:
        raise UserError(f"no task {name!r}; choose one of {LISTED}")
    return cast(Task, importlib.import_module(f"lema_jax.tasks.{name}"))


def grade(problem: Problem, text: str, *, truncated: bool) -> tuple[str | None, Verdict]:
    """The extracted answer of `text` and its verdict. `truncated`: the token limit cut the text off.

    A cut text that states a right answer is right; any other cut text is TRUNCATED, never WRONG: it is no mistake to
    learn from. A text that ends within a thought is cut, and states nothing.
    """
    task = get(problem.task)
    said = thinking.spoken(text)
    if not said.whole:
        return None, Verdict.TRUNCATED
    answer = task.extract(_whole(said.text) if truncated else said.text, problem)
    if answer is not None and task.same(answer, problem.gold):
        return answer, Verdict.RIGHT
    if truncated:
        return answer, Verdict.TRUNCATED
    return answer, Verdict.UNPARSED if answer is None else Verdict.WRONG


def _whole(text: str) -> str:
    """A cut text without its last word, which may be a part of one (a 2 of 204), and without a number that is then left
    alone on the last line, which may be that of the next step."""
    text = text[: max(text.rfind(" "), text.rfind("\n")) + 1]
    before, newline, last = text.rpartition("\n")
    return text if any(map(str.isalpha, last)) else before + newline
