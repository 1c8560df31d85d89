r"""GSM8K (Cobbe et al. 2021): 7,473 training and 1,319 test problems of grade-school mathematics, MIT licence.

A line of the publisher's files: `{"question": "…", "answer": "… 48/2 = <<48/2=24>>24 clips in May.\n…\n#### 72"}`.
"""

import re
from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import answers, sources
from lema_jax.tasks.word_problems import completion, extract, official_grader, prompt, same

__all__ = ["SPLITS", "completion", "download", "extract", "load", "official_grader", "prompt", "same"]

_URL = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/"
_SOURCES = {
    "train": sources.Source("gsm8k/train.jsonl", 7_473, "e3ed13a2e8108d1b", _URL + "train.jsonl"),
    "test": sources.Source("gsm8k/test.jsonl", 1_319, "e49c879a75aed512", _URL + "test.jsonl"),
}
_SHA256 = {
    "train": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "test": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
}
SPLITS = tuple(_SOURCES)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems of a split in the publisher's order; `meta` has the number of steps of the gold rationale.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the line).
    """
    if split not in _SOURCES:
        raise UserError(f"the task gsm8k has no split {split!r}; there are: {', '.join(SPLITS)}")
    path = sources.find(_SOURCES[split], data_dir)
    rows = sources.read_jsonl(path, ("question", "answer"))
    problems = [_problem(split, number, row, f"{path}:{number}") for number, row in rows]
    return sources.check(_SOURCES[split], path, problems)


def download(data_dir: Path) -> None:
    """Downloads the publisher's files into `data_dir`/gsm8k unless they exist.

    Raises:
      UserError: no network, or a file whose sha256 is not the publisher's.
    """
    for split, source in _SOURCES.items():
        sources.download(source, _SHA256[split], data_dir)


def solved(answer: object, where: str) -> tuple[str, str]:
    """Rationale and gold of a published answer, which ends in a line `#### NUMBER`.

    Raises:
      UserError: it does not; names its place.
    """
    rationale, mark, gold = str(answer).rpartition("\n#### ")
    gold = re.sub(r"[,\s]", "", gold)
    if not mark or answers.number(gold) is None:
        raise UserError(f"{where}: answer: does not end in a line `#### NUMBER`")
    return rationale, gold


def _problem(split: str, number: int, row: dict[str, str], where: str) -> Problem:
    rationale, gold = solved(row["answer"], where)
    return sources.problem(
        where,
        id=f"gsm8k/{split}/{number - 1}",
        task="gsm8k",
        split=split,
        question=row["question"],
        gold=gold,
        rationale=rationale,
        meta={"steps": len(rationale.splitlines())},
    )
