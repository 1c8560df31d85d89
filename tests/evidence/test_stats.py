"""The statistics against independent formulas, published examples and their own definitions."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from lema_jax.evidence import crossed, stats

Z = 1.959963984540054
COUNTS = st.tuples(*[st.integers(0, 400)] * 4).filter(lambda counts: sum(counts) > 0).map(lambda c: stats.Paired(*c))


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (score, no continuity correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_the_published_examples(k, n, low, high):
    assert stats.wilson(k, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_are_where_the_score_test_turns(kn):
    k, n = kn
    low, high = stats.wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            assert abs(k / n - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(Z, rel=1e-6)


def test_mcnemar_equals_the_textbook_sum():
    # Agresti, Categorical Data Analysis, approval of the prime minister: 86 against 150.
    paired = stats.Paired(both_right=794, fixed=86, broken=150, both_wrong=570)
    tail = sum(math.comb(236, i) for i in range(87)) / 2**236
    assert stats.mcnemar(paired) == pytest.approx(2 * tail, rel=1e-9)


@given(COUNTS)
def test_mcnemar_is_symmetric_and_blind_to_agreement(paired):
    p = stats.mcnemar(paired)
    assert 0 < p <= 1
    mirrored = stats.Paired(both_right=7, fixed=paired.broken, broken=paired.fixed, both_wrong=0)
    assert stats.mcnemar(mirrored) == pytest.approx(p)
    assert paired.discordant >= 6 or p > 0.05  # five disagreements can show nothing at 5 %


def test_holm_equals_the_worked_example():
    # Four tests: 0.01 and 0.005 stay below 5 % after 3x and 4x, 0.03 and 0.04 do not.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    corrected = stats.holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected))
    assert min(corrected) == pytest.approx(min(1, min(p_values) * len(p_values)))
    order = np.argsort(p_values)
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, size=2000)
    half = Z * values.std() / math.sqrt(2000)
    assert stats.bootstrap_mean(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_pair_counts_add_up(answers):
    baseline, other = (np.array(column) for column in zip(*answers))
    paired = stats.pair(baseline, other)
    assert paired.n == len(answers)
    assert paired.difference == pytest.approx(other.mean() - baseline.mean())
    assert paired.both_right + paired.broken == baseline.sum()


def test_pair_refuses_runs_of_different_length():
    with pytest.raises(ValueError, match="same questions"):
        stats.pair(np.ones(3, bool), np.ones(4, bool))


@given(COUNTS)
@settings(max_examples=30)
def test_the_paired_score_interval_holds_the_difference_and_turns_with_the_arms(paired):
    low, high = stats.paired_score(paired)
    assert -1 <= low <= paired.difference <= high <= 1
    assert low < high
    turned = stats.paired_score(paired._replace(fixed=paired.broken, broken=paired.fixed))
    assert turned == pytest.approx((-high, -low), abs=1e-6)


@given(COUNTS)
@settings(max_examples=30)
def test_the_paired_score_interval_leaves_out_0_where_mcnemars_score_test_is_significant(paired):
    fixed, broken = paired.fixed, paired.broken
    score = abs(fixed - broken) / math.sqrt(max(1, fixed + broken))
    assume(abs(score - Z) > 1e-4)
    low, high = stats.paired_score(paired)
    assert (low > 0 or high < 0) == (score > Z)


def test_the_paired_score_interval_equals_resampling_where_many_answers_differ():
    paired = stats.Paired(both_right=300, fixed=60, broken=40, both_wrong=100)
    differences = np.repeat([0.0, 1.0, -1.0], [400, 60, 40])
    rng = np.random.default_rng(1)
    means = [rng.choice(differences, size=500).mean() for _ in range(4000)]
    assert stats.paired_score(paired) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)


@pytest.mark.parametrize(("n", "fixed", "broken"), [(64, 0.02, 0.01), (200, 0.01, 0.005), (64, 0.2, 0.1)])
def test_the_paired_score_interval_covers_the_truth_where_few_answers_differ(n, fixed, broken):
    """Exact: every table by its probability. A resampling of the questions covers the first two 70 and 86 %."""
    covered = 0.0
    for k in range(n + 1):
        for j in range(n + 1 - k):
            chance = scipy_stats.multinomial.pmf([k, j, n - k - j], n, [fixed, broken, 1 - fixed - broken])
            if chance > 1e-7:
                low, high = stats.paired_score(stats.Paired(n - k - j, k, j, 0))
                covered += chance * (low <= fixed - broken <= high)
    assert covered > 0.93


def test_a_difference_of_accuracies_that_no_study_could_show_is_infinite():
    assert math.isinf(stats.detectable_by_t(0.5, 2))


@given(st.integers(50, 20_000), st.floats(0.02, 0.8))
def test_detectable_paired_solves_connors_formula(n, discordance):
    difference = stats.detectable_paired(n, discordance)
    if math.isinf(difference):
        return
    needed = (
        Z * math.sqrt(discordance) + 0.8416212335729143 * math.sqrt(discordance - difference**2)
    ) ** 2 / difference**2
    assert needed == pytest.approx(n, rel=1e-6)


@pytest.mark.parametrize(("n", "discordance"), [(1319, 0.2), (1000, 0.4), (5000, 0.1), (300, 0.3)])
def test_the_exact_test_has_the_stated_power_at_the_detectable_difference(n, discordance):
    difference = stats.detectable_paired(n, discordance)
    draws = np.random.default_rng(0).multinomial(
        n, [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance], size=2000
    )
    fixed, broken, _ = draws[draws[:, :2].any(axis=1)].T
    p_values = 2 * scipy_stats.binom.cdf(np.minimum(fixed, broken), fixed + broken, 0.5)
    assert np.mean(p_values < 0.05) == pytest.approx(0.8, abs=0.05)


def test_what_cannot_be_detected_is_infinite():
    assert math.isinf(stats.detectable_paired(20, 0.05))  # one question of 20
    assert math.isinf(stats.detectable_unpaired(3, 0.9))
    assert math.isinf(stats.detectable_unpaired(1000, 1.0))


@given(st.integers(100, 20_000), st.floats(0.0, 0.9))
def test_detectable_unpaired_solves_its_formula(n, accuracy):
    difference = stats.detectable_unpaired(n, accuracy)
    if math.isinf(difference):
        return
    q, mean = accuracy + difference, accuracy + difference / 2
    spread = Z * math.sqrt(2 * mean * (1 - mean)) + 0.8416212335729143 * math.sqrt(
        accuracy * (1 - accuracy) + q * (1 - q)
    )
    assert spread**2 / difference**2 == pytest.approx(n, rel=1e-4)


def test_the_papers_gain_is_below_what_one_run_of_gsm8k_can_show():
    """1-2 points on 1,319 questions do not differ from noise without pairing and several seeds."""
    assert stats.detectable_unpaired(1319, 0.814) > 0.035
    assert 0.02 < stats.detectable_paired(1319, 0.15) < 0.04


@pytest.mark.parametrize("df", [1.0, 2.0, 4.4, 30.0, 1e6])
def test_detectable_by_t_has_the_stated_power(df):
    ratio = stats.detectable_by_t(0.01, df) / 0.01
    rng = np.random.default_rng(0)
    t = (ratio + rng.standard_normal(40_000)) / np.sqrt(rng.chisquare(df, 40_000) / df)
    assert np.mean(t > scipy_stats.t.ppf(0.975, df)) == pytest.approx(0.8, abs=0.01)


def test_detectable_by_t_tends_to_the_normal_formula_and_needs_a_degree_of_freedom():
    assert stats.detectable_by_t(0.01, 1e7) == pytest.approx(0.01 * (Z + 0.8416212335729143), rel=1e-4)
    assert math.isinf(stats.detectable_by_t(0.01, 0))


def test_detectable_study_by_hand():
    # No variance between seeds but the residual's: 2 seeds, 1,000 questions, 20 % and 20 % disagree.
    questions, residual = (0.2 - 0.2 / 2) / 1000, 0.2 / 2 / 1000
    df = questions**2 / (questions**2 / 999 + residual**2 / 2 + residual**2 / (2 * 999))
    by_hand = stats.detectable_by_t(math.sqrt(questions), df)
    assert stats.detectable_study(1000, 2, 0.2, 0.0, between_seeds=0.2) == pytest.approx(by_hand)


@given(st.integers(200, 5_000), st.integers(2, 10), st.floats(0.05, 0.5), st.floats(0, 0.03))
@settings(max_examples=50)
def test_detectable_study_shrinks_with_questions_and_seeds(n, seeds, discordance, seed_sd):
    found = stats.detectable_study(n, seeds, discordance, seed_sd)
    assert found <= discordance or math.isinf(found)
    # Where seeds dominate, more questions gain nothing, and cost a little: fewer degrees of freedom are left.
    assert stats.detectable_study(4 * n, seeds, discordance, seed_sd) <= 1.05 * found
    assert stats.detectable_study(n, seeds + 3, discordance, seed_sd) <= found
    assert stats.detectable_study(n, seeds, discordance, seed_sd + 0.02) >= found


def test_detectable_study_with_one_seed_is_that_of_two_checkpoints():
    assert stats.detectable_study(1000, 1, 0.2, 0.01) == stats.detectable_paired(1000, 0.2)


def test_a_study_has_the_stated_power_at_the_detectable_difference():
    """Simulated with normal effects of the assumed sizes, and tested as the report does."""
    n, seeds, discordance, seed_sd, within = 1000, 3, 0.2, 0.01, 0.1
    difference = stats.detectable_study(n, seeds, discordance, seed_sd, between_seeds=within)
    rng, found = np.random.default_rng(1), 0
    for _ in range(400):
        question = rng.normal(0, math.sqrt(discordance - within), n)
        arms = [
            shift + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, math.sqrt(within / 2), (seeds, n)) + of
            for shift, of in ((0.0, 0.0), (difference, question))
        ]
        found += crossed.difference(*arms).p < 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize("given", [(1, 3, 0.2, 0.0), (100, 0, 0.2, 0.0), (100, 3, 1.2, 0.0), (100, 3, 0.2, -0.1)])
def test_detectable_study_refuses_what_is_no_study(given):
    with pytest.raises(ValueError, match="n must exceed 1"):
        stats.detectable_study(*given)


def test_a_study_of_runs_that_never_disagree_detects_nothing():
    assert math.isinf(stats.detectable_study(100, 3, 0.0, 0.0))
