"""Whether a score is of reasoning or of memory: questions that training data gives away, and pairs of tests.

A pair is a test and another of the same kind that no model was trained on: GSM8K and GSM1k, or its questions with other
numbers (GSM-Plus, GSM-Symbolic). Differences are about these checkpoints: seeds are averaged, and their draw is not in
the interval.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax.errors import UserError
from lema_jax.evidence import clusters, crossed, groups, table
from lema_jax.evidence.compare import Arm
from lema_jax.evidence.stats import Interval
from lema_jax.records import Problem

OVERLAP = "Questions that training data gives away, and others"
PAIRS = "On another test; questions made from others are compared with those alone"
HEADER = ("run", "questions", "n", "accuracy", "95 % interval", "Δ points", "its 95 % interval")


@dataclass(frozen=True)
class Part:
    """An arm's accuracy on some questions, and the difference to the first part where it is a further one."""

    run: str
    questions: str
    n: int
    accuracy: float
    interval: Interval
    difference: float | None = None
    difference_interval: Interval | None = None


def by_overlap(arms: Sequence[Arm], overlapping: Collection[str]) -> list[Part]:
    """Each arm's accuracy on the questions that do not overlap with training data, and on those that do.

    Args:
      overlapping: ids of the questions that do; those of other tests are ignored.
    """
    of = np.array([prediction.problem.id in overlapping for prediction in arms[0].runs[0].predictions])
    if not of.any() or of.all():
        return [_part(arm, "overlapping" if of.all() else "not overlapping", of == of[0]) for arm in arms]
    parts = []
    for arm in arms:
        other, seen = _part(arm, "not overlapping", ~of), _part(arm, "overlapping", of)
        problems = [prediction.problem for prediction in arm.runs[0].predictions]
        parts += [other, _against(other, seen, *_values(arm, ~of), *_values(arm, of), *_split(_origins(problems), of))]
    return parts


def pair(one: Arm, other: Arm) -> list[Part]:
    """An arm's accuracy on a test and on another, all its questions and each kind of them, with the differences.

    Where questions of one were made from questions of the other, both are cut down to these.

    Raises:
      UserError: two checkpoints.
    """
    if (here := _checkpoints(one)) != (there := _checkpoints(other)):
        raise UserError(
            f"--runs has {one.name} of {', '.join(here)}, --pair of {', '.join(there)}: give runs of one checkpoint "
            "with the same --names, or in the same order"
        )
    first, second = ([p.problem for p in arm.runs[0].predictions] for arm in (one, other))
    names, others = np.array(_origins(first)), np.array(_origins(second))
    common = np.intersect1d(names, others)
    kept, kept_other = np.isin(names, common), np.isin(others, common)
    if not common.size:
        kept, kept_other = np.ones(len(names), bool), np.ones(len(others), bool)
    before = _part(one, _test(first[0]), kept)
    whole = _test(second[0])
    kinds = np.array([groups.value(problem, "kind") for problem in second])
    chosen = {whole: kept_other}
    if len(set(kinds[kept_other])) > 1:
        chosen |= {f"{whole}: {kind}": kept_other & (kinds == kind) for kind in dict.fromkeys(kinds[kept_other])}
    values = _values(one, kept)
    return [
        before,
        *(
            _against(before, _part(other, name, of), *values, *_values(other, of), names[kept], others[of])
            for name, of in chosen.items()
        ),
    ]


def rows(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    """Rows of the table with the header `HEADER`."""
    lines: list[tuple[str, ...]] = []
    for part in parts:
        against = ("", "")
        if part.difference is not None and part.difference_interval is not None:
            against = (table.points(part.difference), table.points_span(part.difference_interval))
        measured = (f"{part.n:,}", table.percent(part.accuracy), table.span(part.interval))
        lines.append((part.run, part.questions, *measured, *against))
    return lines


def _against(
    before: Part, part: Part, one: np.ndarray, other: np.ndarray, of_one: np.ndarray, of_other: np.ndarray
) -> Part:
    """The part with its difference to `before`: over common clusters where there are any."""
    if np.intersect1d(of_one, of_other).size:
        interval = crossed.shared(one, other, of_one, of_other).interval()
    else:
        interval = crossed.apart(before.accuracy, before.interval, part.accuracy, part.interval)
    measured = (part.run, part.questions, part.n, part.accuracy, part.interval)
    return Part(*measured, part.accuracy - before.accuracy, interval)


def _part(arm: Arm, questions: str, of: np.ndarray) -> Part:
    """The arm on some of its questions, [questions] booleans."""
    right = arm.right[:, of]
    within = None if arm.clusters is None else arm.clusters.part(of)
    interval = clusters.accuracy_interval(right, within, samples=arm.samples)
    return Part(arm.name, questions, int(of.sum()), float(right.mean()), interval)


def _values(arm: Arm, of: np.ndarray) -> tuple[np.ndarray]:
    return (arm.right[:, of].mean(axis=0),)


def _split(names: Sequence[str], of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.array(names)[~of], np.array(names)[of]


def _origins(problems: Sequence[Problem]) -> list[str]:
    """The text that each question was made from; its own where it names none."""
    return [" ".join(str(problem.meta.get("seed_question", problem.question)).split()) for problem in problems]


def _checkpoints(arm: Arm) -> list[str]:
    return [run.predictions[0].checkpoint for run in arm.runs]


def _test(problem: Problem) -> str:
    return f"{problem.task}/{problem.split}"
