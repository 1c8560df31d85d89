"""SVAMP (Patel et al. 2021): 1,000 one-step word problems for testing, MIT licence.

The publisher's file is one list of `{"ID": …, "Body": …, "Question": …, "Answer": 51.0, "Type": "Subtraction", …}`.
"""

from pathlib import Path
from typing import Any

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import answers, expressions, sources
from lema_jax.tasks.word_problems import completion, extract, join, prompt, same
from lema_jax.tasks.word_problems import rounded_official_grader as official_grader

__all__ = ["SPLITS", "completion", "extract", "load", "official_grader", "prompt", "same"]

_SOURCE = sources.Source(
    "svamp/SVAMP.json", 1_000, "d90f8f48d9df4c3c", "https://raw.githubusercontent.com/arkilpatel/SVAMP/main/SVAMP.json"
)
SPLITS = ("test",)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems in the publisher's order; `meta` has the operation.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the entry).
    """
    if split not in SPLITS:
        raise UserError(f"the task svamp has no split {split!r}; there is: test")
    path = sources.find(_SOURCE, data_dir)
    rows = sources.read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of problems; download it again from {_SOURCE.url}")
    return sources.check(_SOURCE, path, [_problem(n, row, f"{path}: entry {n}") for n, row in enumerate(rows)])


def _problem(number: int, row: Any, where: str) -> Problem:
    sources.require_keys(where, row, ("Body", "Question", "Answer", "Type"))
    gold = answers.number(str(row["Answer"]))
    if gold is None:
        raise UserError(f"{where}: Answer: {row['Answer']!r} is no number")
    return sources.problem(
        where,
        id=f"svamp/test/{number}",
        task="svamp",
        split="test",
        question=join(str(row["Body"]), str(row["Question"])),
        gold=expressions.written(gold),
        meta={"type": row["Type"]},
    )
