"""Statistics of evaluations: intervals, paired tests, detectable differences.

Everything here is a pure function of counts or of arrays of right/wrong; random resampling is seeded. Accuracies and
differences are fractions in [0, 1] and [-1, 1]; a difference is always `other - baseline`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8
RESAMPLES = 10_000


class Interval(NamedTuple):
    low: float
    high: float


def wilson(k: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a proportion k / n.

    The p with |k/n - p| <= z sqrt(p (1 - p) / n) (Wilson 1927, JASA 22:209). Unlike k/n ± z·se it keeps its coverage
    near 0 and 1, never leaves [0, 1], and is no point when k is 0 or n.
    """
    low, high = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    return Interval(float(low), float(high))


class Paired(NamedTuple):
    """The 2 x 2 table of two runs on the same n questions."""

    both_right: int
    fixed: int  # the baseline wrong, the other right
    broken: int  # the baseline right, the other wrong
    both_wrong: int

    @property
    def n(self) -> int:
        return sum(self)

    @property
    def discordant(self) -> int:
        return self.fixed + self.broken

    @property
    def difference(self) -> float:
        """Accuracy of the other minus accuracy of the baseline."""
        return (self.fixed - self.broken) / self.n


def pair(baseline: np.ndarray, other: np.ndarray) -> Paired:
    """The 2 x 2 table of two boolean arrays, one entry a question, in the same order. Both [n]."""
    if baseline.shape != other.shape or not baseline.size:
        raise ValueError(f"two runs on the same questions have equal shapes, not {baseline.shape} and {other.shape}")
    return Paired(
        both_right=int(np.sum(baseline & other)),
        fixed=int(np.sum(~baseline & other)),
        broken=int(np.sum(baseline & ~other)),
        both_wrong=int(np.sum(~baseline & ~other)),
    )


def mcnemar(paired: Paired) -> float:
    """Two-sided p-value of the exact McNemar test that two runs are equally accurate.

    Under that hypothesis each question on which they disagree falls either way like a fair coin, so `fixed` is
    Binomial(fixed + broken, 1/2) (McNemar 1947, Psychometrika 12:153; exact form). No disagreement gives 1.
    """
    if not paired.discordant:
        return 1.0
    return float(stats.binomtest(paired.fixed, paired.discordant, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: rejecting below 5 % bounds the chance of *any* false finding by 5 %.

    The i-th smallest of k is multiplied by k - i + 1, and never falls below the one before (Holm 1979, Scand. J.
    Statist. 6:65).
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    return adjusted.tolist()


def bootstrap_mean(values: np.ndarray, *, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """Percentile bootstrap interval of the mean of [n] values."""
    rng = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(values))  # bounds memory
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    means = [rng.choice(values, size=(size, len(values))).mean(axis=1) for size in sizes]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def paired_score(paired: Paired, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of the difference in accuracy of two runs on the same n questions.

    The δ with (difference - δ)² <= z² (2 q + δ (1 - δ)) / n, where q is the likeliest share of broken questions if the
    difference is δ (Tango 1998, Statistics in Medicine 17:891). Like Wilson's, and unlike a resampling of questions, it
    is no point where no question is answered otherwise.
    """
    n, value, z = paired.n, paired.difference, _normal((1 + confidence) / 2)

    def excess(delta: float) -> float:
        b = (2 * n - n * value) * delta - paired.discordant
        broken = (math.sqrt(max(0.0, b * b + 8 * n * paired.broken * delta * (1 - delta))) - b) / (4 * n)
        return n * (value - delta) ** 2 - z * z * (2 * broken + delta * (1 - delta))

    nearby = 1e-9  # at the difference itself the variance may be 0
    low = -1.0 if value - nearby <= -1 else optimize.brentq(excess, -1.0, value - nearby)
    high = 1.0 if value + nearby >= 1 else optimize.brentq(excess, value + nearby, 1.0)
    return Interval(float(low), float(high))


def detectable_paired(n: int, discordance: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Smallest difference that a paired test on n questions shows with probability `power`.

    Solves n δ² = (z_{1-α/2} √ψ + z_power √(ψ - δ²))² for δ, with ψ = `discordance`, the share of questions on which
    the two runs disagree (Connor 1987, Biometrics 43:207). Infinite where no difference would do: δ cannot
    exceed ψ.
    """
    a, b = _normal(1 - alpha / 2), _normal(power)
    if not 0 <= discordance <= 1 or n < 1:
        raise ValueError(f"n = {n}, discordance = {discordance}: n must be positive, discordance within [0, 1]")
    inside = n + b * b - a * a
    if inside < 0:
        return math.inf
    difference = math.sqrt(discordance) * (math.sqrt(n) * a + b * math.sqrt(inside)) / (n + b * b)
    return difference if 0 < difference <= discordance else math.inf


def detectable_unpaired(n: int, accuracy: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Smallest gain over `accuracy` that two runs on n questions *each*, not the same ones, show with that power.

    Solves n δ² = (z_{1-α/2} √(2 m (1-m)) + z_power √(p (1-p) + q (1-q)))² for δ = q - p, with p = `accuracy` and
    m = (p + q) / 2 (Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions, ch. 4). Infinite where
    not even an accuracy of 1 would do.
    """
    a, b = _normal(1 - alpha / 2), _normal(power)
    if not 0 <= accuracy <= 1 or n < 1:
        raise ValueError(f"n = {n}, accuracy = {accuracy}: n must be positive, accuracy within [0, 1]")

    def shortfall(difference: float) -> float:
        q = accuracy + difference
        mean = (accuracy + q) / 2
        spread = a * math.sqrt(2 * mean * (1 - mean)) + b * math.sqrt(accuracy * (1 - accuracy) + q * max(0.0, 1 - q))
        return n * difference**2 - spread**2

    if accuracy == 1 or shortfall(1 - accuracy) < 0:
        return math.inf
    return float(optimize.brentq(shortfall, 1e-9, 1 - accuracy))  # from above 0, which is a root where accuracy is 0


def detectable_study(
    n: int,
    seeds: int,
    discordance: float,
    seed_sd: float,
    *,
    between_seeds: float | None = None,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float:
    """Smallest difference between two arms that a study of n questions × seeds shows with probability `power`.

    The test is that of `crossed.difference`: the variance of the difference is
    2 seed_sd² / seeds + (discordance - between_seeds (1 - 1 / seeds)) / n, with Satterthwaite's degrees of freedom.
    With one seed an arm it is that of two checkpoints, whatever the seed does (`detectable_paired`). Infinite where no
    difference would do: it cannot exceed the discordance.

    Args:
      n: questions, each a cluster of its own.
      seeds: training seeds of either arm.
      discordance: share of questions on which two checkpoints, one of each arm, disagree.
      seed_sd: standard deviation of an arm's accuracy between seeds, as a fraction, the draw of questions aside.
      between_seeds: share of questions on which two seeds of one arm disagree, which more seeds average away; by
        default half of `discordance`.

    Raises:
      ValueError: a number out of its range.
    """
    within = discordance / 2 if between_seeds is None else between_seeds
    if not (n > 1 and seeds > 0 and 0 <= within <= discordance <= 1 and seed_sd >= 0):
        raise ValueError(
            f"n = {n}, seeds = {seeds}, discordance = {discordance}, seed_sd = {seed_sd}, between_seeds = {within}: "
            "n must exceed 1, seeds 0, and 0 <= between_seeds <= discordance <= 1"
        )
    if seeds == 1:
        return detectable_paired(n, discordance, alpha=alpha, power=power)
    of_questions, residual = (discordance - within * (1 - 1 / seeds)) / n, within / seeds / n
    of_seeds = 2 * seed_sd**2 / seeds + residual  # the mean squares contain the residual
    variance = of_questions + of_seeds - residual
    if not variance:
        return math.inf
    squares = of_questions**2 / (n - 1) + of_seeds**2 / (2 * (seeds - 1))
    squares += residual**2 / (2 * (seeds - 1) * (n - 1))
    difference = detectable_by_t(math.sqrt(variance), variance**2 / squares, alpha=alpha, power=power)
    return difference if difference <= discordance else math.inf


def detectable_by_t(error: float, df: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Smallest difference that a two-sided t test shows with that power, given its standard error.

    Solves P(T > t_{1-α/2}) = power for T of the noncentral t distribution. Infinite without a degree of freedom, and
    where no difference of two accuracies would do.
    """
    if df <= 0:
        return math.inf
    critical = float(stats.t.ppf(1 - alpha / 2, df))
    least = critical + float(stats.t.ppf(power, df))  # a little less than the root
    ratio = optimize.brentq(lambda ratio: stats.nct.sf(critical, df, ratio) - power, 0.9 * least, 2 * least)
    difference = float(ratio) * error
    return difference if difference <= 1 else math.inf


def _normal(probability: float) -> float:
    return float(stats.norm.ppf(probability))
