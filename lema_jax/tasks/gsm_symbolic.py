"""GSM-Symbolic (Mirzadeh et al. 2024): GSM8K's test questions as templates, with other names and numbers, for testing.

A line of the publisher's files: `{"question": …, "answer": "…\\n#### 72", "original_question": …, "original_answer": …,
"id": 0, "instance": 0, …}`. The instances of one template are one cluster. `p1` and `p2` add one and two clauses.
CC BY-NC-ND 4.0: your own copy only.
"""

from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import gsm8k, sources
from lema_jax.tasks.word_problems import completion, extract, official_grader, prompt, same

__all__ = ["SPLITS", "completion", "extract", "load", "official_grader", "prompt", "same"]

_URL = "https://huggingface.co/datasets/apple/GSM-Symbolic"
_SOURCES = {
    split: sources.Source(
        f"gsm_symbolic/{split}.jsonl",
        count,
        "",
        _URL,
        (f"GSM-Symbolic/{split}/test.jsonl", f"gsm_symbolic/{split}/test.jsonl"),
    )
    for split, count in {"main": 5_000, "p1": 5_000, "p2": 2_500}.items()
}
SPLITS = tuple(_SOURCES)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems of a split in the publisher's order; `meta` has GSM8K's question, which names the template.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the line).
    """
    if split not in _SOURCES:
        raise UserError(f"the task gsm_symbolic has no split {split!r}; there are: {', '.join(SPLITS)}")
    path = sources.find(_SOURCES[split], data_dir)
    problems = []
    for number, (where, row) in enumerate(sources.read_rows(path, ("question", "answer", "original_question"))):
        rationale, gold = gsm8k.solved(row["answer"], where)
        fields = {"question": row["question"], "gold": gold, "rationale": rationale}
        named = {"id": f"gsm_symbolic/{split}/{number}", "task": "gsm_symbolic", "split": split}
        problems.append(sources.problem(where, **named, **fields, meta={"seed_question": row["original_question"]}))
    return sources.check(_SOURCES[split], path, problems)
