"""A user's own task, `jsonl:PATH`: a jsonl file with `question` and `gold` on each line.

Optional keys: `choices` (gold is the text of one of them), `rationale` (one step a line), `id`, `split` (a row without
one belongs to every split, and so to what is trained on). A row with choices is asked and graded like CommonsenseQA, a
numeric gold is graded like GSM8K, any other like MATH, unless it is words that those rules would cut (`phrases`).
"""

import decimal
import json
import re
import types
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import csqa, math, phrases, presentation, sources, word_problems

_NUMBER = re.compile(r"\s*-?\$?-?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?%?\s*")
# A date, a score or a range, which no arithmetic is meant by: `2024-05-01`, `3-2`, `5/1/2024`.
_PARTED = re.compile(r"\s*\d+(?:[-–]\d+)+\s*|\s*\d+(?:/\d+){2,}\s*")
_KEYS = {"question", "gold", "choices", "rationale", "id", "split"}
_NEEDED = ("question", "gold")
_STATED = re.compile(r"[ \t]*####(.+)")  # GSM8K's line of the answer
_SENTENCE = re.compile(r"(?:(?:so|thus|therefore|hence),? )?the (?:final )?answer is\b:?(.+?)\.?", re.IGNORECASE)
_SAYS_MORE = re.compile(r"[=*/+<>;]|[.!?,]\s|\b(?:because|since|as|but)\b", re.IGNORECASE)
_Row = tuple[int, dict[str, Any]]  # the number of its line, and its keys


class JsonlTask:
    """The task of one file; `tasks.Task` documents its functions."""

    SPLITS: Sequence[str] = ("train", "dev", "test")  # unless rows name others

    def __init__(self, path: Path):
        self._path = path

    def load(self, split: str, data_dir: Path | None = None) -> list[Problem]:
        """The file's problems of this split; `data_dir` is ignored.

        Raises:
          UserError: no such file; no row of the split; with file and line: no question or gold, an unknown key, a gold
            that is not one of the choices or that no answer could equal, a rationale that states another one, a
            duplicate id.
        """
        rows = list(self._rows())
        named: Counter[str | None] = Counter(row.get("split") for _, row in rows)
        if not (problems := self._of(rows, split, (None, split))):
            there = ", ".join(f"{name} ({count:,})" for name, count in named.items())
            raise UserError(
                f"{self._path}: no problem of split {split!r}; its rows name {there or 'none: it is empty'}"
            )
        if split != "train" and named[None]:
            logging.warning(
                "%s: %s of its questions name no `split`: whatever is trained on this file has learnt them too",
                *(self._path, f"{named[None]:,}"),
            )
        return problems

    def held_out(self, *, unnamed: bool) -> dict[str, list[Problem]]:
        """By split, the problems of rows that name one other than train.

        Args:
          unnamed: whether those that name none are held out too, as `test`.

        Raises:
          UserError: see `load`.
        """
        rows = list(self._rows())
        found = dict.fromkeys(row.get("split") for _, row in rows)
        named: dict[str, tuple[str | None, ...]] = {split: (split,) for split in found if split not in (None, "train")}
        if unnamed and None in found:
            named["test"] = (None, "test")
        return {split: self._of(rows, split, of) for split, of in named.items()}

    def prompt(self, problem: Problem) -> str:
        return _family(problem).prompt(problem)

    def completion(self, problem: Problem) -> str:
        problem = problem.model_copy(update={"gold": _trimmed(problem.gold)})
        return word_problems.completion(problem) if problem.rationale else csqa.completion(problem)

    def extract(self, text: str, problem: Problem) -> str | None:
        return _family(problem).extract(text, problem)

    def same(self, answer: str, gold: str) -> bool:
        if _NUMBER.fullmatch(gold):
            return word_problems.same(answer, gold)
        if _PARTED.fullmatch(gold):
            return _parts(answer) == _parts(gold)
        if phrases.is_one(gold):
            return phrases.same(answer, gold)
        return csqa.same(answer, gold) or math.same(answer, gold)

    def official_grader(self, text: str, problem: Problem) -> bool:
        return _family(problem).official_grader(text, problem)

    def _rows(self) -> Iterator[_Row]:
        """All rows, with their line numbers; a key whose value is null is as if it were not there."""
        if not self._path.is_file():
            raise UserError(f"--task=jsonl:{self._path}: there is no such file")
        for number, row in sources.read_jsonl(self._path, _NEEDED):
            _check(row, f"{self._path}:{number}")
            yield number, {key: value for key, value in row.items() if value is not None}

    def _of(self, rows: Sequence[_Row], split: str, named: Collection[str | None]) -> list[Problem]:
        """The problems of `split`: of the rows whose own is among `named`."""
        lines: dict[str, int] = {}
        golds: dict[tuple[str, ...], tuple[int, str]] = {}  # a question -> where it stands first, and its gold there
        problems, twice = [], []
        for number, row in rows:
            if row.get("split") not in named:
                continue
            where, name = f"{self._path}:{number}", str(row.get("id", number - 1))
            if (first := lines.setdefault(name, number)) != number:
                raise UserError(
                    f"{where}: id {name!r} is that of line {first} already; each row needs its own (a row without one "
                    "gets its line's number, counted from 0)"
                )
            problems.append(made := self._problem(where, split, row, name))
            question = (" ".join(made.question.casefold().split()), *sorted(made.choices))
            at, gold = golds.setdefault(question, (number, made.gold))
            if gold != made.gold and not self.same(made.gold, gold):
                twice.append(f"{at} and {number} ({gold[:30]!r}, {made.gold[:30]!r})")
        if twice:
            logging.warning(
                "%s: questions that stand twice with other golds, in lines %s", self._path, ", ".join(twice[:3])
            )
        return problems

    def _problem(self, where: str, split: str, row: dict[str, Any], name: str) -> Problem:
        made = sources.problem(
            where,
            id=f"{self._path.stem}/{split}/{name}",
            task=f"jsonl:{self._path}",
            split=split,
            question=row["question"],
            gold=_text(row["gold"]) if row.get("choices") else _text(row["gold"]).strip(),
            rationale=_unix(row.get("rationale", "")),
            choices=row.get("choices", ()),
        )
        before, _, last = made.rationale.rpartition("\n")
        marked, sentence = _STATED.fullmatch(last), _SENTENCE.fullmatch(last.strip())
        if found := marked or sentence:
            said = found[1].strip()
            is_gold = self.same(said, made.gold) if marked else self._is_gold_alone(said, made)
            both = f"{said} {made.gold}"
            numbers = "%" not in both and _NUMBER.fullmatch(said) and _NUMBER.fullmatch(made.gold)
            if not is_gold and (marked or numbers):
                raise UserError(f"{where}: rationale: ends in the answer {said[:60]!r}, but gold is {made.gold[:60]!r}")
            if is_gold:
                made = made.model_copy(update={"rationale": before})
        self._require_answerable(where, made)
        return made

    def _is_gold_alone(self, said: str, problem: Problem) -> bool:
        """Whether what a last sentence says is gold and no more than a word or two, such as its unit."""
        read = self.extract(f"The answer is {said}.", problem)
        short = len(said.split()) <= len(problem.gold.split()) + 2 and not _SAYS_MORE.search(said)
        return said == problem.gold or (read is not None and short and self.same(read, problem.gold))

    def _require_answerable(self, where: str, problem: Problem) -> None:
        """Refuses a gold that an answer in the words of training would not equal, and one that another choice would."""
        same = csqa.same if problem.choices else self.same
        for other in problem.choices:
            if other != problem.gold and same(other, problem.gold):
                raise UserError(
                    f"{where}: choices: {other!r} would count as the gold {problem.gold!r}; write them otherwise"
                )
        said = csqa.completion(problem)
        if (read := self.extract(said, problem)) is None or not same(read, problem.gold):
            raise UserError(
                f"{where}: gold: {problem.gold[:60]!r} could not be answered: of {said[:80]!r} the grader reads "
                f"{read and read[:60]!r}; write the answer alone, in other words"
            )


def _family(problem: Problem) -> types.ModuleType:
    if problem.choices:
        return csqa
    if _NUMBER.fullmatch(problem.gold):
        return word_problems
    return phrases if phrases.is_one(problem.gold) else math


def _parts(answer: str) -> list[str]:
    """The numbers of a date, score or range, without leading zeros."""
    plain = re.sub(r"\s*(?:[-–]|\bto\b)\s*", "-", presentation.plain(answer).strip(" $."))
    plain = plain.replace("/", "-") if plain.count("/") > 1 else plain
    return [part.lstrip("0") for part in plain.split("-")]


def _text(gold: str | int | float) -> str:
    """A number without an exponent, and a whole one without a point: a column of floats holds 61 as 61.0."""
    if isinstance(gold, float) and gold.is_integer():
        return str(int(gold))
    return format(decimal.Decimal(repr(gold)), "f") if isinstance(gold, float) else str(gold)


def _trimmed(gold: str) -> str:
    """Without the full stop of a sentence, which completions add."""
    return gold[:-1].rstrip() if gold[:-1].strip() and gold.endswith(".") and not gold.endswith("..") else gold


def _unix(text: Any) -> Any:
    return text.replace("\r\n", "\n").strip() if isinstance(text, str) else text


def _check(row: dict[str, Any], where: str) -> None:
    if unknown := sorted(row.keys() - _KEYS):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; a row has {', '.join(sorted(_KEYS))}")
    gold = row["gold"]
    is_number = isinstance(gold, int | float) and not isinstance(gold, bool) and decimal.Decimal(gold).is_finite()
    if not is_number and not isinstance(gold, str):
        raise UserError(f"{where}: gold: {json.dumps(gold)[:60]} is no answer; write it as text or as a number")
    for key in _NEEDED:
        if row[key] is None or not str(row[key]).strip():
            raise UserError(f"{where}: {key}: is empty; a task needs one for every question")
    if not isinstance(row.get("rationale"), str | None):
        raise UserError(
            f"{where}: rationale: {json.dumps(row['rationale'])[:60]} is no text; write a step on each line"
        )
    if not isinstance(row.get("split"), str | None):
        raise UserError(f"{where}: split: {row['split']!r} is no text; name the split, or leave it out")
    choices = row.get("choices")
    if choices is None:
        return
    if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
        raise UserError(f"{where}: choices: {json.dumps(choices)[:60]} is no list of texts")
    if gold not in choices:
        raise UserError(f"{where}: gold: {gold!r} is none of the choices {choices}; write it as the text of one")
