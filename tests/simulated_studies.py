"""Studies whose true accuracies are known: arms × seeds × questions, right where a normal variable is below its bound.

The variable is the sum of a question's difficulty, shared by both arms (0.6 of the variance), what an arm makes of the
question (0.1), and what a seed makes of it (0.3); of each, 0.3 is common to a cluster. Two seeds of one arm then
disagree on about 15 to 20 % of the questions, two arms on 3 % more.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

COMMON = 0.3  # share of a variance that the questions of a cluster have in common


class Study(NamedTuple):
    """Right or wrong, [seeds, questions]; clusters, [questions]; true accuracies of the arms, and of these seeds."""

    baseline: np.ndarray
    other: np.ndarray
    clusters: np.ndarray | None
    accuracies: tuple[float, float]
    of_seeds: tuple[float, float]

    @property
    def effect(self) -> float:
        return self.accuracies[1] - self.accuracies[0]

    @property
    def effect_of_seeds(self) -> float:
        return self.of_seeds[1] - self.of_seeds[0]


def study(
    rng: np.random.Generator,
    *,
    seeds: int,
    questions: int,
    cluster: int = 1,
    seed_sd: float = 0.0,
    accuracy: float = 0.3,
    effect: float = 0.02,
) -> Study:
    """A study drawn at random: `cluster` questions a cluster, `seed_sd` as a fraction (0.01 for a point)."""
    clusters = np.arange(questions) // cluster
    difficulty = _normal(rng, clusters, 1, 0.6)
    arms, of_seeds, accuracies = [], [], (accuracy, accuracy + effect)
    for true in accuracies:
        bound = special.ndtri(true)
        sd = seed_sd * np.sqrt(2 * np.pi) * np.exp(bound**2 / 2)  # over the normal density
        shift = bound * np.sqrt(1 + sd**2) + sd * rng.standard_normal((seeds, 1))  # the mean over seeds is `true`
        found = difficulty + _normal(rng, clusters, 1, 0.1) + _normal(rng, clusters, seeds, 0.3)
        arms.append(found < shift)
        of_seeds.append(float(special.ndtr(shift).mean()))
    return Study(*arms, None if cluster == 1 else clusters, accuracies, (of_seeds[0], of_seeds[1]))


def _normal(rng: np.random.Generator, clusters: np.ndarray, rows: int, variance: float) -> np.ndarray:
    """[rows, questions] of this variance, `COMMON` of it common to a cluster."""
    own = rng.standard_normal((rows, len(clusters)))
    if clusters[-1] == len(clusters) - 1:
        return np.sqrt(variance) * own
    common = rng.standard_normal((rows, clusters[-1] + 1))[:, clusters]
    return np.sqrt(variance) * (np.sqrt(COMMON) * common + np.sqrt(1 - COMMON) * own)


class Sampled(NamedTuple):
    """Right samples of each question, [questions] counts; clusters; true accuracy of one, and pass@samples."""

    right: np.ndarray
    clusters: np.ndarray | None
    accuracy: float
    passed: float


def sampled(rng: np.random.Generator, *, questions: int, cluster: int, samples: int, accuracy: float) -> Sampled:
    """One model's samples: 0.6 of the variance is the question's, of which `COMMON` is a cluster's."""
    clusters = np.arange(questions) // cluster
    bound = special.ndtri(accuracy)
    p = special.ndtr((bound - _normal(rng, clusters, 1, 0.6)[0]) / np.sqrt(0.4))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    of_nodes = special.ndtr((bound - np.sqrt(0.6) * nodes) / np.sqrt(0.4))
    passed = float(weights @ (1 - (1 - of_nodes) ** samples) / weights.sum())
    return Sampled(rng.binomial(samples, p), None if cluster == 1 else clusters, accuracy, passed)


class Pair(NamedTuple):
    """Right or wrong on two tests, [questions of each]; the cluster of each question; the true difference."""

    one: np.ndarray
    other: np.ndarray
    of_one: np.ndarray
    of_other: np.ndarray
    effect: float


def pair(rng: np.random.Generator, *, seeds: int, changed: int, accuracy: float, effect: float = -0.1) -> Pair:
    """One question of each seed, and `changed` made from it that share its difficulty; 0 for as many of their own."""
    of_one = np.arange(seeds)
    of_other = np.repeat(of_one, changed) if changed else np.arange(seeds, 2 * seeds)
    common = np.sqrt(0.4) * rng.standard_normal(2 * seeds)
    draw = lambda of, true: common[of] + np.sqrt(0.6) * rng.standard_normal(of.size) < special.ndtri(true)
    return Pair(draw(of_one, accuracy), draw(of_other, accuracy + effect), of_one, of_other, effect)
