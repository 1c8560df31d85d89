"""Measures of several samples a question: avg@k, pass@k and maj@k.

avg@k is the mean accuracy of one sample. pass@j is the probability that one of j samples is right, without bias from k
samples of which c are right: 1 - C(k - c, j) / C(k, j) (Chen et al. 2021, arXiv 2107.03374). maj@k is the accuracy of
the answer that most samples agree on (self-consistency, Wang et al. 2022, arXiv 2203.11171).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax import tasks
from lema_jax.evidence import clusters
from lema_jax.evidence.clusters import Clusters
from lema_jax.evidence.stats import Interval
from lema_jax.records import Prediction, Verdict


@dataclass(frozen=True)
class Measure:
    """A mean over questions, with its 95 % interval over their clusters."""

    value: float
    interval: Interval


def pass_at(right: int, samples: int, tries: int) -> float:
    """pass@`tries` of a question, from `samples` samples of which `right` are right; 1 <= tries <= samples."""
    return 1 - math.comb(samples - right, tries) / math.comb(samples, tries)


def majority(answers: Sequence[str | None], same: Callable[[str, str], bool], gold: str) -> float:
    """How right the answer is that most samples agree on; of several, the share that is right.

    None, no answer, does not vote; without any vote the question is wrong.

    Args:
      same: whether two answers are equal.
    """
    votes: list[tuple[str, int]] = []
    for answer in answers:
        if answer is not None:
            at = next((i for i, (first, _) in enumerate(votes) if first == answer or same(answer, first)), None)
            if at is None:
                votes.append((answer, 1))
            else:
                votes[at] = (votes[at][0], votes[at][1] + 1)
    most = max((count for _, count in votes), default=0)
    first = [answer for answer, count in votes if count == most]
    return sum(same(answer, gold) for answer in first) / len(first) if first else 0.0


def measured(questions: Sequence[Sequence[Prediction]], within: Clusters | None) -> tuple[dict[int, Measure], Measure]:
    """pass@j for j = 1, 2, 4, … and k, and maj@k.

    Args:
      questions: of each question its k samples.
      within: the clusters of the questions.
    """
    k = len(questions[0])
    counts = [sum(one.verdict is Verdict.RIGHT for one in samples) for samples in questions]
    tries = [*(2**power for power in range(k.bit_length()) if 2**power < k), k]
    passed = {j: _measure([pass_at(count, k, j) for count in counts], within) for j in tries}
    return passed, _measure([_majority(samples) for samples in questions], within)


def _majority(samples: Sequence[Prediction]) -> float:
    problem = samples[0].problem
    return majority([one.answer for one in samples], tasks.get(problem.task).same, problem.gold)


def _measure(values: Sequence[float], within: Clusters | None) -> Measure:
    found = np.array([values])
    return Measure(float(found.mean()), clusters.accuracy_interval(found, within, samples=2))
