"""Accuracies of arms with several training seeds: crossed random effects of seeds and of clusters of questions.

Every seed answers the same questions, so seeds and questions are crossed: more seeds do not average away the draw of
the questions, nor more questions that of the seeds. For an arm with k seeds on n questions in C clusters,

    right[s, q] = mean + seed[s] + question[q] + residual[s, q]

where questions and residuals are independent between clusters, not within one. The variance of a mean over seeds and
questions is the mean square of seeds plus that of clusters, less the residual, which both contain (Owen 2007, "The
pigeonhole bootstrap", Ann. Appl. Stat. 1:386; for two ways of clustering Cameron, Gelbach & Miller 2011, J. Bus. Econ.
Stat. 29:238). Clustered errors of evaluations: Miller 2024, arXiv 2411.00640.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from lema_jax.evidence.stats import CONFIDENCE, Interval, Paired, paired_score


class Estimate(NamedTuple):
    """A mean or a difference with its standard error and degrees of freedom; `df` is 0 where neither is known."""

    value: float
    error: float
    df: float

    @property
    def p(self) -> float:
        """Two-sided p-value of the t test that the value is 0; 1 where the error is unknown."""
        return float(2 * special.stdtr(self.df, -abs(self.value) / self.error)) if self.df else 1.0

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The t interval of a difference, within [-1, 1]; all of that where the error is unknown."""
        if not self.df:
            return Interval(-1.0, 1.0)
        half = self.quantile(confidence) * self.error
        return Interval(max(-1.0, self.value - half), min(1.0, self.value + half))

    def quantile(self, confidence: float = CONFIDENCE) -> float:
        return float(special.stdtrit(self.df, (1 + confidence) / 2))


def difference(baseline: np.ndarray, other: np.ndarray, clusters: np.ndarray | None = None) -> Estimate:
    """The difference in mean accuracy of two arms, `other - baseline`.

    Its variance is the sum of each arm's part by seeds (the seeds of two arms are independent) and of the clusters'
    part, which is of the difference per question. An arm with one seed stands for that checkpoint: its seed adds none.

    Args:
      baseline: right or wrong, or the share of a question's samples that are right, [seeds, questions].
      other: the same for the other arm, questions in the same order, [other's seeds, questions].
      clusters: each question's cluster, [questions]; by default each question is a cluster of its own.
    """
    if baseline.ndim != 2 or other.ndim != 2 or baseline.shape[1] != other.shape[1] or not baseline.size * other.size:
        raise ValueError(f"expected [seeds, questions] with the same questions, got {baseline.shape} and {other.shape}")
    return _estimate(float(other.mean() - baseline.mean()), [baseline, other], [-1, 1], clusters)


def mean(right: np.ndarray, clusters: np.ndarray | None = None) -> Estimate:
    """The mean accuracy of one arm; arguments as of `difference`."""
    if right.ndim != 2 or not right.size:
        raise ValueError(f"expected [seeds, questions], got {right.shape}")
    return _estimate(float(right.mean()), [right], [1], clusters)


def proportion(
    right: np.ndarray, clusters: np.ndarray | None = None, *, samples: int = 1, confidence: float = CONFIDENCE
) -> Interval:
    """Wilson's interval of the mean accuracy of one arm, on as many questions as would have its standard error.

    That is p (1 - p) / error², at most all answers, with Student's quantile in place of the normal one, as for
    proportions of surveys (Franco, Little, Louis & Slud 2019, J. Surv. Stat. Methodol. 7:334). Where all are right, or
    none, the error is unknown, and each cluster counts as one answer. Arguments as of `difference`; `samples` is the
    number of answers that a share in `right` is of.
    """
    estimate = mean(right, clusters)
    if not estimate.df:
        return Interval(0.0, 1.0)
    p, t = estimate.value, estimate.quantile(confidence)
    independent = right.shape[1] if clusters is None else np.unique(clusters).size
    n = min(right.size * samples, p * (1 - p) / estimate.error**2) if 0 < p < 1 else independent
    centre, half = p + t * t / (2 * n), t * (p * (1 - p) / n + (t / (2 * n)) ** 2) ** 0.5
    low, high = (centre - half) / (1 + t * t / n), (centre + half) / (1 + t * t / n)
    return Interval(max(0.0, min(p, low)), min(1.0, max(p, high)))  # p is an end where it is 0 or 1


def shared(one: np.ndarray, other: np.ndarray, of_one: np.ndarray, of_other: np.ndarray) -> Estimate:
    """The difference in mean accuracy of two tests whose questions share clusters, `other - one`.

    A question's part in the difference is its deviation from its test's mean, over the test's questions; the variance
    is that of the sums over clusters, as of a ratio (Cochran 1977, Sampling Techniques, ch. 6), with a degree of
    freedom for each cluster but one.

    Args:
      one: right or wrong, or a share of right samples, of each question of the first test, [questions].
      other: the same of the other test, [its questions].
      of_one, of_other: the cluster of each question, by numbers that both tests share.
    """
    value = float(other.mean() - one.mean())
    parts = np.concatenate([(one.mean() - one) / one.size, (other - other.mean()) / other.size])
    _, of = np.unique(np.concatenate([of_one, of_other]), return_inverse=True)
    sums = np.bincount(of, weights=parts)
    if sums.size == 1:
        return Estimate(value, 0.0, 0)
    least = 1 / one.size**2 + 1 / other.size**2  # as of one answer of each
    variance = max(float(np.sum(sums**2)) * sums.size / (sums.size - 1), least)
    return Estimate(value, variance**0.5, sums.size - 1)


def apart(one: float, of_one: Interval, other: float, of_other: Interval) -> Interval:
    """The interval of `other - one`, accuracies of two tests without common questions, from the interval of each.

    The square-and-add method, which keeps its coverage near 0 and 1 (Newcombe 1998, Statistics in Medicine 17:873,
    method 10).
    """
    difference = other - one
    low = difference - ((other - of_other.low) ** 2 + (of_one.high - one) ** 2) ** 0.5
    high = difference + ((of_other.high - other) ** 2 + (one - of_one.low) ** 2) ** 0.5
    return Interval(max(-1.0, low), min(1.0, high))


class _Part(NamedTuple):
    """A mean square as a part of a variance, with its degrees of freedom."""

    variance: float
    df: int


def _estimate(value: float, arms: list[np.ndarray], signs: list[int], clusters: np.ndarray | None) -> Estimate:
    """A signed sum of arms' mean accuracies, with Satterthwaite's degrees of freedom (1946, Biometrics Bull. 2:110).

    Where few seeds happen to lie close together, the residual may leave next to nothing: the variance is at least the
    clusters' part, or half of it where both arms have several seeds, and the degrees of freedom are at least those of
    the part that has the fewest. The bounds are chosen by simulation (tests/benchmarks/bench_coverage.py). Where no
    seed differs on any question, the interval is Tango's.
    """
    sums = [_sums(right, clusters) for right in arms]
    questions, count = arms[0].shape[1], sums[0].shape[1]
    if count == 1:
        return Estimate(value, 0.0, 0)
    if len(arms) > 1 and all((right == arms[0][0]).all() for right in arms):  # no seed differs on any question
        half = paired_score(Paired(0, 0, 0, count)).high  # as of one pair of runs, each cluster an answer
        return Estimate(value, half / float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)), count - 1)
    between = sum(sign * of.mean(axis=0) for sign, of in zip(signs, sums))
    least = 1 / (max(map(len, arms)) * questions) ** 2  # as of one answer: where none differs, it may be by chance
    clustered = _Part(max(_squares(between, questions), least), count - 1)
    several = [(right, of) for right, of in zip(arms, sums) if len(right) > 1]
    seeds = [_Part(float(right.mean(axis=1).var(ddof=1)) / len(right), len(right) - 1) for right, _ in several]
    residuals = [
        _Part(_squares(of - of.mean(axis=0), questions) / (len(of) * (len(of) - 1)), (len(of) - 1) * (count - 1))
        for _, of in several
    ]
    added, parts = [clustered, *seeds], [clustered, *seeds, *residuals]
    variance = sum(part.variance for part in added) - sum(part.variance for part in residuals)
    variance = max(variance, clustered.variance / max(1, len(several)))
    df = variance**2 / sum(part.variance**2 / part.df for part in parts)
    return Estimate(value, variance**0.5, max(df, min(part.df for part in added)))


def _sums(right: np.ndarray, clusters: np.ndarray | None) -> np.ndarray:
    """Sums over the questions of each cluster of right less the seed's mean: [seeds, clusters]."""
    centred = right - right.mean(axis=1, keepdims=True)
    if clusters is None:
        return centred
    _, of = np.unique(clusters, return_inverse=True)
    return np.stack([np.bincount(of, weights=row) for row in centred])


def _squares(sums: np.ndarray, questions: int) -> float:
    """The variance of a mean over questions, from the sums over each cluster, [..., clusters]; summed over seeds."""
    clusters = sums.shape[-1]
    return float(np.sum(sums**2)) / questions**2 * clusters / (clusters - 1)
