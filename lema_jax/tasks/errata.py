"""Errata of a benchmark: golds that were found wrong, mended or left out, and counted.

They come from a publisher (`platinum`: GSM8K-Platinum, the questions of GSM8K's test set that were checked), or from a
jsonl file of one's own: `{"id": "gsm8k/test/12", "gold": "5"}`, with the gold null to leave a question out.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import gsm8k_platinum, sources

PLATINUM = "platinum"
HELP = (
    "Errata of the tests: `platinum` (GSM8K-Platinum's, of gsm8k/test), or a jsonl file whose lines have the `id` of a "
    "question and its `gold`, null to leave it out. None by default."
)


@dataclasses.dataclass(frozen=True)
class Mended:
    """The problems that remain, and how many were left out and got another gold."""

    problems: list[Problem]
    left_out: int
    changed: int

    def __str__(self) -> str:
        return (
            f"errata: {self.left_out:,} questions left out, {self.changed:,} golds changed; {len(self.problems):,} left"
        )


def mend(problems: Sequence[Problem], errata: str, data_dir: Path | None = None) -> Mended:
    """The problems by the errata.

    Args:
      errata: `platinum`, or the path of a file.

    Raises:
      UserError: a file that is missing or malformed, errata of other problems, or nothing that remains.
    """
    golds = _platinum(problems, data_dir) if errata == PLATINUM else _own(problems, Path(errata))
    kept = [(problem, golds.get(problem.id, problem.gold)) for problem in problems]
    mended = [problem.model_copy(update={"gold": gold}) for problem, gold in kept if gold is not None]
    if not mended:
        raise UserError(f"--errata={errata} leaves out all {len(problems):,} questions; is it of another test?")
    changed = sum(gold is not None and gold != problem.gold for problem, gold in kept)
    return Mended(mended, len(problems) - len(mended), changed)


def _platinum(problems: Sequence[Problem], data_dir: Path | None) -> dict[str, str | None]:
    strangers = {f"{problem.task}/{problem.split}" for problem in problems} - {"gsm8k/test"}
    if strangers:
        raise UserError(f"--errata={PLATINUM} is of gsm8k/test, not of {min(strangers)}; leave it out, or give a file")
    checked = {_text(problem): problem.gold for problem in gsm8k_platinum.load("test", data_dir)}
    same = gsm8k_platinum.same
    found: dict[str, str | None] = {}
    for problem in problems:
        gold = checked.get(_text(problem))
        found[problem.id] = problem.gold if gold is not None and same(gold, problem.gold) else gold
    return found


def _text(problem: Problem) -> str:
    return " ".join(problem.question.split())


def _own(problems: Sequence[Problem], path: Path) -> dict[str, str | None]:
    if not path.is_file():
        raise UserError(f"--errata={path}: there is no such file; give one, or `{PLATINUM}`")
    known = {problem.id: problem for problem in problems}
    found: dict[str, str | None] = {}
    for number, row in sources.read_jsonl(path, ("id", "gold")):
        id, gold = str(row["id"]), row["gold"]
        if id not in known:
            raise UserError(f"{path}:{number}: id: the test has no question {id!r}; its first is {problems[0].id!r}")
        if id in found:
            raise UserError(f"{path}:{number}: id: {id!r} stands on an earlier line too; keep one of them")
        if gold is not None and not str(gold).strip():
            raise UserError(f"{path}:{number}: gold: is empty; give the answer, or null to leave the question out")
        if gold is not None and not _is_answerable(gold, known[id]):
            raise UserError(
                f"{path}:{number}: gold: {json.dumps(gold)[:60]} is no answer of {known[id].task}; give it alone"
            )
        found[id] = None if gold is None else str(gold)
    return found


def _is_answerable(gold: object, problem: Problem) -> bool:
    if not isinstance(gold, str | int | float) or isinstance(gold, bool):
        return False
    return str(gold) in problem.choices if problem.choices else tasks.get(problem.task).same(str(gold), str(gold))
