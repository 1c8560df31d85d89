r"""MATH (Hendrycks et al. 2021): 7,500 training and 5,000 test problems of competitions, MIT licence; and MATH-500.

Read from the publisher's folders (`MATH/train/algebra/0.json`, …) or from one line a problem (`math/train.jsonl`, the
same objects with their path as `unique_id`): `{"problem": …, "level": "Level 5", "type": "Algebra", "solution": "…"}`.
The gold answer is the content of the solution's last box.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import logging

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import answers, forms, presentation, sources, symbolic
from lema_jax.tasks import paper as authors
from lema_jax.tasks.word_problems import prompt

__all__ = ["SPLITS", "completion", "extract", "load", "paper", "prompt", "same"]

_TAR = "https://people.eecs.berkeley.edu/~hendrycks/MATH.tar"
_PRM800K = "https://github.com/openai/prm800k/raw/main/prm800k/math_splits/test.jsonl"
_SOURCES = {
    "train": sources.Source("math/train.jsonl", 7_500, "1de0dc8dceed6755", _TAR),
    "test": sources.Source("math/test.jsonl", 5_000, "e32be996ffb58004", _TAR),
    "500": sources.Source("math/math500_prm800k_split.jsonl", 500, "2969309e2b1ef190", _PRM800K),
}
SPLITS = tuple(_SOURCES)
_KEYS = ("problem", "level", "solution")


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems of a split, but for those without gold (two of `train` have an empty box), which are logged.

    `meta` has subject, level (1 to 5; two of `train` have none) and the publisher's path.

    Raises:
      UserError: no such split; no such file; a file that is not the publisher's, with the line that is wrong.
    """
    if split not in _SOURCES:
        raise UserError(f"the task math has no split {split!r}; there are: {', '.join(SPLITS)}")
    source = _SOURCES[split]
    path, rows = _rows(split, source, data_dir)
    problems = [_problem(split, number, row, where) for number, (where, row) in enumerate(rows)]
    sources.check(source, path, problems)
    without = [problem.meta["path"] for problem in problems if not problem.gold]
    if without:
        logging.warning("%s: left out, for their box is empty: %s", path, ", ".join(without))
    return [problem for problem in problems if problem.gold]


def completion(problem: Problem) -> str:
    """The published solution and `The answer is {gold}.`"""
    return f"{problem.rationale.strip()}\nThe answer is {problem.gold}."


def extract(text: str, problem: Problem) -> str | None:
    r"""What `text` states as its answer, as LaTeX; None when it states nothing.

    The content of the last box that has any. Without a box, what follows the last other cue (`answers.stated`): the
    formulas between dollar signs (or `\(`, `\[`) in the rest of the sentence, or that rest itself where it has none.
    """
    statements = list(answers.stated(text))
    boxes = (content.strip() for content, boxed in statements if boxed)
    others = (_statement(after) for after, boxed in statements if not boxed)
    return next(filter(None, (*boxes, *others)), None)


def same(answer: str, gold: str) -> bool:
    """Whether both are the same mathematically: by their forms, and where these do not tell, by computer algebra."""
    answer, gold = presentation.plain(answer), presentation.plain(gold)
    if not answer.strip() or not gold.strip():
        return False
    verdict = forms.same(forms.read(answer), forms.read(gold))
    return bool(symbolic.same(answer, gold) if verdict is None else verdict)


def paper(text: str, problem: Problem) -> bool:
    """The authors' verdict: MATH's string normal forms are equal."""
    answer = authors.latex(text)
    return answer is not None and answer == authors.normal_gold(problem.gold)


_DISPLAYED = re.compile(r"\s*:?\s*(?:\\\[|\$\$)(.*?)(?:\\\]|\$\$)", re.DOTALL)
_FORMULAS = re.compile(r"\$.*\$|\\\(.*\\\)")
_END = re.compile(r"\.(?=\s|$)|\n|,?\s(?:because|since|which|where)\b")


def _statement(after: str) -> str:
    if displayed := _DISPLAYED.match(after):
        return displayed[1].strip()
    line = after.lstrip(" :\n*")
    end = next((end for end in _END.finditer(line) if line.count("$", 0, end.start()) % 2 == 0), None)
    sentence = line[: end.start()] if end else line
    formulas = _FORMULAS.search(sentence)
    return (formulas.group() if formulas else sentence).strip(" *")


def _rows(
    split: str, source: sources.Source, data_dir: Path | None
) -> tuple[Path, Iterable[tuple[str, dict[str, Any]]]]:
    """Where the problems lie, and each with its place."""
    folder = sources.folder(source, data_dir)
    for parent in (folder / "MATH" / split, folder / "math" / split, folder / split):
        if parent.is_dir():
            files = sorted(parent.glob("*/*.json"), key=lambda file: (file.parent.name, int(file.stem)))
            return parent, ((str(file), _of_file(split, file)) for file in files)
    path = sources.find(source, data_dir)
    return path, ((f"{path}:{number}", row) for number, row in sources.read_jsonl(path, (*_KEYS, "unique_id")))


def _of_file(split: str, file: Path) -> dict[str, Any]:
    row = sources.require_keys(str(file), sources.read_json(file), (*_KEYS, "type"))
    return row | {"unique_id": f"{split}/{file.parent.name}/{file.name}"}


def _problem(split: str, number: int, row: dict[str, Any], where: str) -> Problem:
    solution = str(row["solution"])
    gold = (
        str(row["answer"])
        if "answer" in row
        else next((text for text, boxed in answers.stated(solution) if boxed), None)
    )
    if gold is None:
        raise UserError(f"{where}: solution: has no \\boxed{{…}}")
    level = re.fullmatch(r"Level (\d)", str(row["level"])) if not isinstance(row["level"], int) else [0, row["level"]]
    return sources.problem(
        where,
        id=f"math/{split}/{number}",
        task="math",
        split=split,
        question=row["problem"],
        gold=" ".join(gold.split()),
        rationale=solution,
        meta={
            "subject": row.get("subject") or row["type"],
            "level": int(level[1]) if level else None,
            "path": row["unique_id"],
        },
    )
