"""AIME (MAA): 30 problems a year of the American Invitational Mathematics Examination; answers are integers to 999.

A row of the files that are in use (`_SOURCES`; Parquet or lines): `{"problem" or "question": …, "answer": "073"}`. Take
several samples a question: 30 questions show only large differences.
"""

import re
from pathlib import Path
from typing import Any

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import sources
from lema_jax.tasks.math import extract, official_grader, same
from lema_jax.tasks.word_problems import completion, prompt

__all__ = ["SPLITS", "completion", "extract", "load", "official_grader", "prompt", "same"]

_HUB = "https://huggingface.co/datasets/"
_SOURCES = {
    "2024": (
        sources.Source(
            "aime/2024.jsonl",
            30,
            "",
            _HUB + "HuggingFaceH4/aime_2024",
            ("aime_2024/data/train-00000-of-00001.parquet",),
        ),
    ),
    "2025": tuple(
        sources.Source(
            f"aime/aime2025-{part}.jsonl", 15, "", _HUB + "opencompass/AIME2025", (f"AIME2025/aime2025-{part}.jsonl",)
        )
        for part in ("I", "II")
    ),
    "2026": (
        sources.Source(
            "aime/2026.jsonl", 30, "", _HUB + "MathArena/aime_2026", ("aime_2026/data/train-00000-of-00001.parquet",)
        ),
    ),
}
SPLITS = tuple(_SOURCES)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems of a year, a part after the other.

    Raises:
      UserError: no such split or file; a file that is not what is in use (names the row).
    """
    if split not in _SOURCES:
        raise UserError(f"the task aime has no split {split!r}; there are: {', '.join(SPLITS)}")
    problems: list[Problem] = []
    for source in _SOURCES[split]:
        path = sources.find(source, data_dir)
        rows = enumerate(sources.read_rows(path, ("answer",)), start=len(problems))
        part = [_problem(split, number, row, where) for number, (where, row) in rows]
        problems += sources.check(source, path, part)
    return problems


def _problem(split: str, number: int, row: dict[str, Any], where: str) -> Problem:
    key = "problem" if "problem" in row else "question"
    sources.require_keys(where, row, (key,))
    answer = str(row["answer"]).strip()
    if not re.fullmatch(r"\d{1,3}", answer, re.ASCII):
        raise UserError(f"{where}: answer: {answer[:60]!r} is no integer from 0 to 999")
    return sources.problem(
        where,
        id=f"aime/{split}/{number}",
        task="aime",
        split=split,
        question=row[key],
        gold=str(int(answer)),
        rationale=str(row.get("solution") or ""),
    )
