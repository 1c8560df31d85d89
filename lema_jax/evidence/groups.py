"""Accuracy by the metadata of questions: subject, level, number of steps, template."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax.evidence import stats
from lema_jax.evidence.clusters import Clusters, accuracy_interval
from lema_jax.evidence.compare import Arm
from lema_jax.records import Problem

_MOST = 60  # groups of a field; one with more values is an identifier or a free text
_ORIGINS = ("seed", "seed_question")  # name one question each, which is no group to look at


@dataclass(frozen=True)
class Grouped:
    """`accuracy[arm][i]` is the accuracy of that arm and its interval on the `n[i]` questions of `groups[i]`."""

    key: str
    groups: tuple[str, ...]
    n: tuple[int, ...]
    accuracy: dict[str, list[tuple[float, stats.Interval]]]


def keys(problems: Sequence[Problem]) -> list[str]:
    """The fields of `Problem.meta` that divide the questions into 2 to 60 groups, fewer than there are questions."""
    names = dict.fromkeys(key for problem in problems for key in problem.meta if key not in _ORIGINS)
    most = min(_MOST, len(problems) - 1)
    return [key for key in names if 2 <= len({value(problem, key) for problem in problems}) <= most]


def value(problem: Problem, key: str) -> str:
    """The group a question belongs to; "none" where its metadata lacks the field."""
    return str(problem.meta[key]) if key in problem.meta else "none"


def by(key: str, arms: Sequence[Arm]) -> Grouped:
    """Every arm's accuracy in each group of a `meta` field, in natural order (`Level 2` before `Level 10`)."""
    of = np.array([value(prediction.problem, key) for prediction in arms[0].runs[0].predictions])
    groups = tuple(sorted(set(of.tolist()), key=natural))
    parts = [of == group for group in groups]
    accuracy = {
        arm.name: [
            (
                float(arm.right[:, part].mean()),
                accuracy_interval(arm.right[:, part], _within(arm, part), samples=arm.samples),
            )
            for part in parts
        ]
        for arm in arms
    }
    return Grouped(key, groups, tuple(int(part.sum()) for part in parts), accuracy)


def _within(arm: Arm, part: np.ndarray) -> Clusters | None:
    """The clusters of a part of the questions, [questions] booleans."""
    return None if arm.clusters is None else arm.clusters.part(part)


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key of natural order: digits as numbers."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]
