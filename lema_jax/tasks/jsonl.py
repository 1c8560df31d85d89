"""A user's own task, `jsonl:PATH`: a jsonl file with `question` and `gold` on each line.

Optional keys: `choices` (gold is the text of one of them), `rationale` (one step a line), `id`, `split` (a row without
one belongs to every split, and so to what is trained on). A row with choices is graded like CommonsenseQA, a numeric
gold like GSM8K, any other like MATH.
"""

import re
import types
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import csqa, math, sources, word_problems

_NUMBER = re.compile(r"\s*-?\$?-?\d[\d,]*(\.\d+)?%?\s*")
_KEYS = {"question", "gold", "choices", "rationale", "id", "split"}


class JsonlTask:
    """The task of one file; `tasks.Task` documents its functions."""

    SPLITS: Sequence[str] = ("train", "dev", "test")  # unless rows name others

    def __init__(self, path: Path):
        self._path = path

    def load(self, split: str, data_dir: Path | None = None) -> list[Problem]:
        """The file's problems of this split; `data_dir` is ignored.

        Raises:
          UserError: no such file; no row of the split; with file and line: no question or gold, an unknown key, a gold
            that is not one of the choices, a duplicate id.
        """
        if not (problems := self._of(split, (None, split))):
            raise UserError(f"{self._path}: no problem of split {split!r}; rows without a `split` belong to every one")
        return problems

    def held_out(self) -> dict[str, list[Problem]]:
        """By split, the problems of rows that name one other than train. Those that name none are trained on too.

        Raises:
          UserError: see `load`.
        """
        named = dict.fromkeys(row.get("split") for _, row in self._rows())
        return {split: self._of(split, (split,)) for split in named if split not in (None, "train")}

    def prompt(self, problem: Problem) -> str:
        return _family(problem).prompt(problem)

    def completion(self, problem: Problem) -> str:
        return word_problems.completion(problem) if problem.rationale else csqa.completion(problem)

    def extract(self, text: str, problem: Problem) -> str | None:
        return _family(problem).extract(text, problem)

    def same(self, answer: str, gold: str) -> bool:
        if _NUMBER.fullmatch(gold):
            return word_problems.same(answer, gold)
        return csqa.same(answer, gold) or math.same(answer, gold)

    def official_grader(self, text: str, problem: Problem) -> bool:
        return _family(problem).official_grader(text, problem)

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """All rows, with their line numbers."""
        if not self._path.is_file():
            raise UserError(f"--task=jsonl:{self._path}: there is no such file")
        for number, row in sources.read_jsonl(self._path, ("question", "gold")):
            _check(row, f"{self._path}:{number}")
            yield number, row

    def _of(self, split: str, named: Collection[str | None]) -> list[Problem]:
        """The problems of `split`: of the rows whose own is among `named`."""
        lines: dict[str, int] = {}
        problems = []
        for number, row in self._rows():
            if row.get("split") not in named:
                continue
            where = f"{self._path}:{number}"
            problem = self._problem(where, split, row, str(row["id"]) if "id" in row else str(number - 1))
            if (first := lines.setdefault(problem.id, number)) != number:
                raise UserError(f"{where}: id {row['id']!r} is on line {first} already; each row needs its own")
            problems.append(problem)
        return problems

    def _problem(self, where: str, split: str, row: dict[str, Any], name: str) -> Problem:
        return sources.problem(
            where,
            id=f"{self._path.stem}/{split}/{name}",
            task=f"jsonl:{self._path}",
            split=split,
            question=row["question"],
            gold=str(row["gold"]),
            rationale=row.get("rationale", ""),
            choices=row.get("choices", ()),
        )


def _family(problem: Problem) -> types.ModuleType:
    if problem.choices:
        return csqa
    return word_problems if _NUMBER.fullmatch(problem.gold) else math


def _check(row: dict[str, Any], where: str) -> None:
    if unknown := sorted(row.keys() - _KEYS):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; a row has {', '.join(sorted(_KEYS))}")
    for key in ("question", "gold"):
        if not str(row[key]).strip():
            raise UserError(f"{where}: {key}: is empty; a task needs one for every question")
    if not isinstance(row.get("split"), str | None):
        raise UserError(f"{where}: split: {row['split']!r} is no text; name the split, or leave it out")
    if "choices" in row and row["gold"] not in row["choices"]:
        raise UserError(f"{where}: gold: {row['gold']!r} is none of the choices {row['choices']}")
