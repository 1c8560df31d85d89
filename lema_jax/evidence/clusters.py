"""Clusters of questions: those made from one seed question or template, whose answers go right and wrong together."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax.records import Problem

# Fields of `Problem.meta` that name what a question was made from, and what they are called.
_MADE_FROM = {"seed": "seed question", "seed_question": "seed question", "template": "template"}


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
    """The clusters of the questions; a question that names no origin is one of its own.

    None where each question is a cluster of its own, and where all are of one, whose questions are then the population.
    """
    fields = [next((field for field in _MADE_FROM if field in problem.meta), None) for problem in problems]
    names = [("", p.id) if f is None else (_MADE_FROM[f], str(p.meta[f])) for p, f in zip(problems, fields)]
    return _clusters(names, " or ".join(dict.fromkeys(_MADE_FROM[field] for field in fields if field is not None)))


def _clusters(names: Sequence[Hashable], by: str) -> Clusters | None:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(numbers) in (1, len(names)):
        return None
    return Clusters(np.array([numbers[name] for name in names]), by)
