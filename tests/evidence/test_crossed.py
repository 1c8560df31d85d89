"""Crossed random effects: closed forms, degenerate answers, and coverage over simulated studies."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from lema_jax.evidence import crossed, stats
from tests import simulated_studies


def answers(seeds, questions, rate=0.5, seed=0):
    return np.random.default_rng(seed).random((seeds, questions)) < rate


def test_one_seed_an_arm_is_the_paired_t_test():
    baseline, other = answers(1, 200), answers(1, 200, 0.6, seed=1)
    expected = scipy_stats.ttest_rel(other[0].astype(float), baseline[0].astype(float))
    found = crossed.difference(baseline, other)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(expected.df)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()))


def test_equal_clusters_are_the_paired_t_test_of_their_means():
    baseline, other = answers(1, 200), answers(1, 200, 0.6, seed=1)
    means = [arm[0].reshape(25, 8).mean(axis=1) for arm in (baseline, other)]
    expected = scipy_stats.ttest_rel(means[1], means[0])
    found = crossed.difference(baseline, other, np.arange(200) // 8)
    assert (found.p, found.df) == (pytest.approx(expected.pvalue), pytest.approx(24))


def test_unequal_clusters_are_the_cluster_robust_error():
    baseline, other, clusters = answers(1, 7), answers(1, 7, seed=1), np.array(list("aabbbcd"))
    per_question = other[0].astype(float) - baseline[0]
    residual = per_question - per_question.mean()
    sums = [residual[clusters == cluster].sum() for cluster in "abcd"]
    error = math.sqrt(sum(of**2 for of in sums) * 4 / 3) / 7
    found = crossed.difference(baseline, other, clusters)
    assert (found.error, found.df) == (pytest.approx(error), pytest.approx(3))


def test_seeds_that_answer_the_same_questions_are_welchs_test():
    """No question differs within the halves that all answer alike, so that only the means of seeds vary."""
    counts = [[480, 500, 520, 540], [500, 600, 700]]
    arms = [np.array([np.arange(1000) < count for count in of]) for of in counts]
    found = crossed.difference(*arms)
    welch = scipy_stats.ttest_ind(*[np.array(of) / 1000 for of in counts[::-1]], equal_var=False)
    assert found.value == pytest.approx(0.09)
    assert found.p == pytest.approx(welch.pvalue, rel=0.15)  # the questions' part is 1/30 of the variance
    assert found.df == pytest.approx(welch.df, rel=0.15)


def test_the_variance_is_the_sum_of_its_parts_by_hand():
    """The mean squares of a two-way layout, as in any textbook of analysis of variance."""
    right = (np.random.default_rng(3).random((4, 60)) < np.array([[0.2], [0.4], [0.5], [0.7]])).astype(float)
    of_seed, of_question = right.mean(axis=1), right.mean(axis=0)
    residual = right - of_seed[:, None] - of_question + right.mean()
    squares = (60 * of_seed.var(ddof=1), 4 * of_question.var(ddof=1), (residual**2).sum() / (3 * 59))
    variance = (squares[0] + squares[1] - squares[2]) / 240
    df = (variance * 240) ** 2 / (squares[0] ** 2 / 3 + squares[1] ** 2 / 59 + squares[2] ** 2 / (3 * 59))
    found = crossed.mean(right)
    assert variance > squares[1] / 240  # not at its bound
    assert (found.error, found.df) == (pytest.approx(math.sqrt(variance)), pytest.approx(df))


def test_seeds_that_answer_alike_are_no_new_questions():
    """Ten copies of a run leave the error of one."""
    baseline, other = answers(1, 400), answers(1, 400, seed=5)
    one = crossed.difference(baseline, other)
    ten = crossed.difference(np.repeat(baseline, 10, axis=0), np.repeat(other, 10, axis=0))
    assert ten.error == pytest.approx(one.error)


def test_questions_of_one_cluster_that_answer_alike_are_one_question():
    baseline, other = answers(3, 50), answers(3, 50, seed=5)
    alone = crossed.difference(baseline, other)
    eight = crossed.difference(*(np.repeat(arm, 8, axis=1) for arm in (baseline, other)), np.arange(400) // 8)
    assert eight == pytest.approx(alone)
    assert crossed.difference(*(np.repeat(arm, 8, axis=1) for arm in (baseline, other))).error < alone.error


ARMS = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 1))


@given(ARMS, st.booleans())
@settings(max_examples=200)
def test_any_answers_have_a_p_value_and_an_interval_around_the_difference(given_arms, clustered):
    seeds, others, questions, seed, rate = given_arms
    baseline, other = answers(seeds, questions, rate, seed), answers(others, questions, rate, seed + 1)
    clusters = np.arange(questions) // 3 if clustered else None
    found = crossed.difference(baseline, other, clusters)
    interval = found.interval()
    assert 0 <= found.p <= 1
    assert -1 <= interval.low <= found.value <= interval.high <= 1
    assert (found.p < stats.ALPHA) == (interval.low > 0 or interval.high < 0)
    mirrored = crossed.difference(other, baseline, clusters)
    assert (mirrored.value, mirrored.p) == (pytest.approx(-found.value), pytest.approx(found.p))
    of_mean = crossed.proportion(other, clusters)
    assert 0 <= of_mean.low <= other.mean() <= of_mean.high <= 1
    assert of_mean.low < of_mean.high


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_arms_show_no_difference_and_say_how_closely(right, seeds):
    arm = np.full((seeds, 100), right)
    found = crossed.difference(arm, arm)
    assert (found.value, found.p) == (0, 1)
    assert found.interval() == pytest.approx(stats.paired_score(stats.Paired(0, 0, 0, 100)))  # more seeds say no more
    assert crossed.proportion(arm) == pytest.approx(tuple(stats.wilson(100 * right, 100)), abs=0.002)


def test_clusters_that_are_all_wrong_count_as_one_answer_each():
    of = np.arange(120) // 10
    found = crossed.proportion(np.zeros((1, 120), bool), of)
    assert found.low == 0
    assert found.high == pytest.approx(stats.wilson(0, 12).high, abs=0.06)
    assert found.high > 5 * crossed.proportion(np.zeros((1, 120), bool)).high


def test_one_question_or_one_cluster_shows_nothing():
    for clusters in (None, np.zeros(20, int)):
        questions = 1 if clusters is None else 20
        found = crossed.difference(np.zeros((3, questions), bool), np.ones((3, questions), bool), clusters)
        assert (found.value, found.p, found.interval()) == (1, 1, (-1, 1))
        assert crossed.proportion(np.ones((3, questions), bool), clusters) == (0, 1)


def test_other_questions_are_refused():
    with pytest.raises(ValueError, match="same questions"):
        crossed.difference(np.ones((2, 3), bool), np.ones((2, 4), bool))
    with pytest.raises(ValueError, match="same questions"):
        crossed.difference(np.ones(3, bool), np.ones(3, bool))


@pytest.mark.slow
# The whole table, with 2,000 studies a design, is that of tests/benchmarks/bench_coverage.py.
@pytest.mark.parametrize(("seeds", "cluster", "seed_sd"), [(3, 1, 0.0), (3, 1, 0.02), (5, 8, 0.01), (1, 8, 0.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, cluster, seed_sd):
    rng, held, false, studies = np.random.default_rng(2), 0, 0, 400
    for _ in range(studies):
        study = simulated_studies.study(rng, seeds=seeds, questions=300, cluster=cluster, seed_sd=seed_sd)
        interval = crossed.difference(study.baseline, study.other, study.clusters).interval()
        held += interval.low <= study.effect <= interval.high
        of_arm = crossed.proportion(study.baseline, study.clusters)
        false += not of_arm.low <= study.accuracies[0] <= of_arm.high
    assert held / studies == pytest.approx(0.955, abs=0.03)  # nearly three standard errors of 400 studies
    assert false / studies == pytest.approx(0.045, abs=0.035)
