"""Rows to candidates: gold rationales, right attempts, kept corrections. What cannot serve is counted."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from lema_jax import records, tasks
from lema_jax.data import examples
from lema_jax.data.curate import Candidate, Pool
from lema_jax.errors import UserError
from lema_jax.records import Attempt, Correction, Example, Problem, Verdict
from lema_jax.tasks.thinking import spoken

R = TypeVar("R", Attempt, Correction)


def chain_of_thought(task_name: str, gold: Iterable[Problem], attempts: Iterable[Path]) -> Pool:
    """Gold rationales, then the right attempts that end as the paper's completions do, in `The answer is ….`

    An attempt's thinking is no part of its example.

    Raises:
      UserError: an unreadable file, or one of another task.
    """
    task = tasks.get(task_name)
    candidates = [Candidate(problem, examples.cot(problem, task.completion(problem), "gold")) for problem in gold]
    not_right = unended = 0
    for attempt in _rows(attempts, Attempt, task_name, lambda row: row.problem):
        if attempt.verdict is not Verdict.RIGHT:
            not_right += 1
        elif not examples.FINAL_SENTENCE.search((said := spoken(attempt.text).text).strip()):
            unended += 1
        else:
            candidates.append(Candidate(attempt.problem, examples.cot(attempt.problem, said, attempt.student)))
    left_out = [("not right", not_right), ("right, but without a last `The answer is ….`", unended)]
    return Pool("chain of thought", candidates, left_out)


def corrections(task_name: str, paths: Iterable[Path], render: Callable[[Correction], Example]) -> Pool:
    """The corrections that their keep rules passed, as `render` makes examples of them.

    Raises:
      UserError: an unreadable file, or one of another task.
    """
    candidates = []
    rejected = incomplete = 0
    for row in _rows(paths, Correction, task_name, lambda row: row.attempt.problem):
        if row.rejected:
            rejected += 1
        elif not examples.is_complete(row):
            incomplete += 1
        else:
            candidates.append(Candidate(row.attempt.problem, render(row), row))
    return Pool(
        "corrections",
        candidates,
        [("rejected", rejected), ("without a step of the attempt, or a solution", incomplete)],
    )


def held_out(task_name: str, data_dir: Path | None, *, required: bool) -> tuple[dict[str, list[Problem]], list[str]]:
    """The problems of every split but `train` of every task, and the names (`task/split`) of those not to be had here.

    Args:
      required: whether the splits of the task itself must be had; those of a user's own file need not.

    Raises:
      UserError: a required one that cannot be read.
    """
    sets: dict[str, list[Problem]] = {}
    missing = []
    for name in dict.fromkeys((task_name, *tasks.NAMES)):
        task = tasks.get(name)
        for split in task.SPLITS:
            if split == "train":
                continue
            try:
                sets[f"{name}/{split}"] = task.load(split, data_dir)
            except UserError as error:
                if required and name == task_name and name in tasks.NAMES:
                    raise UserError(f"overlap with {name}/{split} cannot be checked: {error}") from None
                missing.append(f"{name}/{split}")
    return sets, missing


def _rows(paths: Iterable[Path], kind: type[R], task_name: str, problem: Callable[[R], Problem]) -> Iterator[R]:
    for path in paths:
        for row in records.read(path, kind):
            if (other := problem(row).task) != task_name:
                raise UserError(
                    f"{path}: row {row.id} is of the task {other}, not {task_name}; a data set has one task"
                )
            yield row
