"""GSM-Plus (Li et al. 2024): GSM8K's test questions changed in eight ways, for testing, CC BY-SA 4.0.

A line of the publisher's files: `{"question": …, "solution": …, "answer": "4.33", "perturbation_type": "numerical
substitution", "seed_question": …, "seed_solution": …, "seed_answer": "3"}`. The questions made from one seed question
are one cluster. The kind `critical thinking` lacks what the answer needs, so it has none, and is left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import answers, expressions, gsm8k, sources
from lema_jax.tasks.word_problems import completion, extract, prompt
from lema_jax.tasks.word_problems import rounded_official_grader as official_grader
from lema_jax.tasks.word_problems import same_rounded as same

__all__ = ["SPLITS", "completion", "extract", "load", "official_grader", "prompt", "same"]

_URL = "https://huggingface.co/datasets/qtli/GSM-Plus"
_SOURCES = {
    "testmini": sources.Source("gsmplus/gsmplus_testmini.jsonl", 2_400, "c56dd4ae21ce1294", _URL),
    "test": sources.Source("gsmplus/gsmplus_test.jsonl", 10_552, "", _URL),
}
SPLITS = (*_SOURCES, "seeds")
UNANSWERABLE = "critical thinking"
_KEYS = ("question", "solution", "answer", "perturbation_type", "seed_question", "seed_solution", "seed_answer")


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems of a split that have an answer; `meta` has the kind of change and the seed question.

    Those of `critical thinking` have none: they are counted in the log, and left out. The split `seeds` has the seed
    questions of `testmini`, which are GSM8K's, to compare with.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the line).
    """
    if split not in SPLITS:
        raise UserError(f"the task gsm_plus has no split {split!r}; there are: {', '.join(SPLITS)}")
    source = _SOURCES["testmini" if split == "seeds" else split]
    path = sources.find(source, data_dir)
    rows = list(sources.read_rows(path, _KEYS))
    problems = [_problem(split, number, row, where) for number, (where, row) in enumerate(rows)]
    sources.check(source, path, problems)
    if split == "seeds":
        return _seeds(rows)
    answered = [problem for problem in problems if problem.meta["kind"] != UNANSWERABLE]
    logging.warning(
        "%s: left out the %d questions of the kind %r, which have no answer",
        path,
        len(problems) - len(answered),
        UNANSWERABLE,
    )
    return answered


def _seeds(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[Problem]:
    first = {str(row["seed_question"]): (where, row) for where, row in reversed(rows)}
    return [_seed(number, *first[text]) for number, text in enumerate(reversed(first))]


def _seed(number: int, where: str, row: dict[str, Any]) -> Problem:
    rationale, gold = gsm8k.solved(row["seed_solution"], where)
    fields = {"question": row["seed_question"], "gold": gold, "rationale": rationale}
    meta = {"seed_question": row["seed_question"]}
    return sources.problem(where, id=f"gsm_plus/seeds/{number}", task="gsm_plus", split="seeds", **fields, meta=meta)


def _problem(split: str, number: int, row: dict[str, Any], where: str) -> Problem:
    kind, gold = row["perturbation_type"], answers.number(str(row["answer"]))
    if gold is None and kind != UNANSWERABLE:
        raise UserError(f"{where}: answer: {row['answer']!r} is no number")
    return sources.problem(
        where,
        id=f"gsm_plus/{split}/{number}",
        task="gsm_plus",
        split=split,
        question=row["question"],
        gold="none" if gold is None else expressions.written(gold),
        rationale=str(row["solution"]).rpartition("\n#### ")[0],
        meta={"kind": kind, "seed_question": row["seed_question"]},
    )
