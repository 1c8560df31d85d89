"""Clusters of questions: those made from one seed question or template, whose answers go right and wrong together."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax.evidence import crossed, stats
from lema_jax.records import Problem

# Fields of `Problem.meta` that name what a question was made from, and what they are called.
MADE_FROM = {"seed": "seed question", "seed_question": "seed question", "template": "template"}


@dataclass(frozen=True, eq=False)
class Clusters:
    """The cluster of each question as a number from 0, [questions]; `by` says what a cluster shares."""

    of: np.ndarray
    by: str

    @property
    def count(self) -> int:
        return int(self.of.max()) + 1

    def part(self, chosen: np.ndarray) -> "Clusters | None":
        """The clusters of some of the questions, [questions] booleans; None as of `find`."""
        return _clusters(self.of[chosen].tolist(), self.by)

    def __str__(self) -> str:
        return f"{self.count:,} clusters of questions of one {self.by}"


def find(problems: Sequence[Problem]) -> Clusters | None:
    """The clusters of the questions; a question that names no origin is one of its own, with all its repetitions.

    None where each question is a cluster of its own, and where all are of one, whose questions are then the population.
    """
    fields = [next((field for field in MADE_FROM if field in problem.meta), None) for problem in problems]
    names = [("", p.id) if f is None else (MADE_FROM[f], str(p.meta[f])) for p, f in zip(problems, fields)]
    by = " or ".join(dict.fromkeys(MADE_FROM[field] for field in fields if field is not None))
    return _clusters(names, by or "question")


def accuracy_interval(right: np.ndarray, within: Clusters | None = None, *, samples: int = 1) -> stats.Interval:
    """The 95 % interval of a mean accuracy.

    Wilson's for one answer each to questions without clusters; else on as many answers as would have the same standard
    error over seeds and clusters (`crossed.proportion`).

    Args:
      right: of each question, right or wrong, or the share of its samples that are right, [runs, questions].
      within: the clusters of the questions.
      samples: answers to a question.
    """
    if len(right) == samples == 1 and within is None:
        return stats.wilson(int(right[0].sum()), right.shape[1])
    return crossed.proportion(right, None if within is None else within.of, samples=samples)


def _clusters(names: Sequence[Hashable], by: str) -> Clusters | None:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(numbers) in (1, len(names)):
        return None
    return Clusters(np.array([numbers[name] for name in names]), by)


def share_interval(true: Sequence[bool], problems: Sequence[Problem]) -> stats.Interval:
    """The 95 % interval of a share of rows, such as attempts; those about the questions of a cluster are one cluster.

    Args:
      problems: the problem of each row.
    """
    return accuracy_interval(np.array([true]), find(problems))
