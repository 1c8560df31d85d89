"""Statistics of evaluations: intervals, paired tests, detectable differences.

Everything here is a pure function of counts or of arrays of right/wrong; random resampling is seeded. Accuracies and
differences are fractions in [0, 1] and [-1, 1]; a difference is always `other - baseline`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from lema_jax.errors import UserError
from lema_jax.records import Prediction, Verdict

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
POWER = 0.8
RESAMPLES = 10_000


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """The result of one run: `n = right + wrong + unparsed + truncated + prompt_too_long`, accuracy = right / n.

    `paper` is the accuracy by the official grader (the authors'); None where an answer lacks its verdict.
    """

    n: int
    right: int
    wrong: int
    unparsed: int
    truncated: int
    prompt_too_long: int
    accuracy: float
    interval: Interval
    paper: float | None


def summarize(predictions: Iterable[Prediction]) -> Summary:
    """Counts the verdicts of one run and puts the 95 % Wilson interval around its accuracy.

    Raises:
      UserError: there are no predictions.
    """
    predictions = list(predictions)
    counts = Counter(prediction.verdict for prediction in predictions)
    n = counts.total()
    if not n:
        raise UserError("there are no predictions to summarise; was every question filtered out?")
    right = counts[Verdict.RIGHT]
    return Summary(
        n=n,
        right=right,
        wrong=counts[Verdict.WRONG],
        unparsed=counts[Verdict.UNPARSED],
        truncated=counts[Verdict.TRUNCATED],
        prompt_too_long=counts[Verdict.PROMPT_TOO_LONG],
        accuracy=right / n,
        interval=wilson(right, n),
        paper=paper_accuracy(predictions),
    )


def paper_accuracy(predictions: Sequence[Prediction]) -> float | None:
    """Accuracy by the official grader; None where an answer lacks its verdict."""
    verdicts = [prediction.paper for prediction in predictions]
    return None if None in verdicts else sum(map(bool, verdicts)) / len(verdicts)


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
    return _percentile(np.concatenate(means), confidence)


def paired_bootstrap(paired: Paired, *, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """Percentile bootstrap interval of the difference in accuracy, the questions resampled in pairs.

    A question's difference is +1 (fixed), -1 (broken) or 0, so resampling n questions with replacement is one
    multinomial draw of those three counts (Efron & Tibshirani 1993, ch. 13; paired use as in Koehn 2004).
    """
    n = paired.n
    rates = np.array([paired.fixed, paired.broken, n - paired.discordant]) / n
    draws = np.random.default_rng(seed).multinomial(n, rates, size=RESAMPLES)  # [resamples, 3]
    return _percentile((draws[:, 0] - draws[:, 1]) / n, confidence)


def hierarchical_bootstrap(
    baseline: np.ndarray, other: np.ndarray, *, seed: int = 0, confidence: float = CONFIDENCE
) -> Interval:
    """Bootstrap interval of the difference in mean accuracy of two arms, each trained with several seeds.

    Each resample draws seeds of either arm with replacement, and questions with replacement, the same questions for
    all of them: every seed answers one test set, so seeds and questions are crossed, and drawing new questions for
    each seed would average their variance away (Owen 2007, "The pigeonhole bootstrap", Ann. Appl. Stat. 1:386).
    With one seed an arm it is the paired bootstrap, which does not see the variance between seeds; with k seeds that
    variance is (k - 1) / k too small, so that fewer than about five make the interval too narrow.

    Args:
      baseline: right or wrong, [seeds, questions].
      other: the same for the other arm, questions in the same order, [other's seeds, questions].
    """
    if baseline.ndim != 2 or other.ndim != 2 or baseline.shape[1] != other.shape[1] or not baseline.size * other.size:
        raise ValueError(f"expected [seeds, questions] with the same questions, got {baseline.shape} and {other.shape}")
    rng = np.random.default_rng(seed)
    questions = baseline.shape[1]
    block = max(1, min(RESAMPLES, 2_000_000 // questions))  # bounds memory for any size of test set
    means = []
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        per_question = _mean_of_drawn_rows(rng, other, size) - _mean_of_drawn_rows(rng, baseline, size)
        drawn = rng.integers(questions, size=(size, questions))
        means.append(np.take_along_axis(per_question, drawn, axis=1).mean(axis=1))
    return _percentile(np.concatenate(means), confidence)


def _mean_of_drawn_rows(rng: np.random.Generator, right: np.ndarray, size: int) -> np.ndarray:
    """Mean over as many rows as there are, drawn with replacement, `size` times: [size, questions]."""
    rows = len(right)
    return rng.multinomial(rows, np.full(rows, 1 / rows), size=size) @ right.astype(np.float64) / rows


def _percentile(values: np.ndarray, confidence: float) -> Interval:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
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


def detectable_from(interval: Interval, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Smallest difference shown with that power, from the 95 % interval of a difference: (z_{1-α/2} + z_power) · se.

    The normal approximation, with the standard error read off the interval's width; for arms with several seeds.
    """
    standard_error = (interval.high - interval.low) / (2 * _normal((1 + CONFIDENCE) / 2))
    return (_normal(1 - alpha / 2) + _normal(power)) * standard_error


def _normal(probability: float) -> float:
    return float(stats.norm.ppf(probability))
