"""GSM8K-Platinum (Vendrow et al. 2025): 1,209 of GSM8K's test problems, checked; others left out, some golds mended.

A row of the publisher's file (Parquet, or the same as lines): `{"question": …, "answer": "…\\n#### 72",
"cleaning_status": "consensus"}`. CC BY-SA 4.0.
"""

from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import gsm8k, sources
from lema_jax.tasks.word_problems import completion, extract, official_grader, prompt, same

__all__ = ["SPLITS", "completion", "extract", "load", "official_grader", "prompt", "same"]

_SOURCE = sources.Source(
    "gsm8k_platinum/test.jsonl",
    1_209,
    "",
    "https://huggingface.co/datasets/madrylab/gsm8k-platinum",
    ("gsm8k-platinum/main/test-00000-of-00001.parquet",),
)
SPLITS = ("test",)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems in the publisher's order; `meta` has the steps of the gold rationale and how a gold was checked.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the row).
    """
    if split not in SPLITS:
        raise UserError(f"the task gsm8k_platinum has no split {split!r}; there is: test")
    path = sources.find(_SOURCE, data_dir)
    rows = sources.read_rows(path, ("question", "answer", "cleaning_status"))
    problems = []
    for number, (where, row) in enumerate(rows):
        rationale, gold = gsm8k.solved(row["answer"], where)
        fields = {"question": row["question"], "gold": gold, "rationale": rationale}
        meta = {"steps": len(rationale.splitlines()), "cleaning": row["cleaning_status"]}
        named = {"id": f"gsm8k_platinum/test/{number}", "task": "gsm8k_platinum", "split": "test"}
        problems.append(sources.problem(where, **named, **fields, meta=meta))
    return sources.check(_SOURCE, path, problems)
