"""GSM1k (Zhang et al. 2024): 1,205 new problems like GSM8K's, for testing: no model was trained on them.

A row of the publisher's file (Parquet, or the same as lines): `{"question": …, "answer": "72"}`. MIT licence.
"""

from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import answers, expressions, sources
from lema_jax.tasks.word_problems import completion, extract, official_grader, prompt, same

__all__ = ["SPLITS", "completion", "extract", "load", "official_grader", "prompt", "same"]

_SOURCE = sources.Source(
    "gsm1k/test.jsonl",
    1_205,
    "",
    "https://huggingface.co/datasets/ScaleAI/gsm1k",
    ("gsm1k/data/test-00000-of-00001.parquet", "gsm1k/test-00000-of-00001.parquet"),
)
SPLITS = ("test",)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems in the publisher's order. They have no rationales.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the row).
    """
    if split not in SPLITS:
        raise UserError(f"the task gsm1k has no split {split!r}; there is: test")
    path = sources.find(_SOURCE, data_dir)
    problems = []
    for number, (where, row) in enumerate(sources.read_rows(path, ("question", "answer"))):
        gold = answers.number(str(row["answer"]).rpartition("####")[2])
        if gold is None:
            raise UserError(f"{where}: answer: {row['answer']!r} is no number")
        fields = {"question": row["question"], "gold": expressions.written(gold)}
        problems.append(sources.problem(where, id=f"gsm1k/test/{number}", task="gsm1k", split="test", **fields))
    return sources.check(_SOURCE, path, problems)
