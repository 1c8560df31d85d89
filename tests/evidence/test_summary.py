"""The result of a run: verdicts apart, intervals over clusters; avg@k, pass@k and maj@k against their definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from lema_jax.errors import UserError
from lema_jax.evidence import clusters, samples, stats, table
from lema_jax.evidence.summary import summarize
from lema_jax.records import Verdict
from tests import made_runs


def sampled(*letters, **fields):
    """Predictions of one question a text: a letter a sample, its number for an answer of its own."""
    rows = []
    for number, of in enumerate(letters):
        problem = made_runs.problem(number, **{key: value[number] for key, value in fields.items()})
        for sample, letter in enumerate(of):
            verdict = made_runs.LETTERS.get(letter, Verdict.WRONG)
            row = made_runs.prediction(problem, verdict)
            answer = {"r": problem.gold, "u": None, "t": None, "l": None}.get(letter, f"1000{letter}")
            rows.append(row.model_copy(update={"id": f"{number}/{sample}", "sample": sample, "answer": answer}))
    return rows


def test_verdicts_are_counted_apart():
    summary = summarize(made_runs.predictions("rrrwwwwut"))
    assert (summary.right, summary.wrong, summary.unparsed, summary.truncated, summary.n) == (3, 4, 1, 1, 9)
    assert summary.accuracy == pytest.approx(1 / 3)
    assert summary.interval == stats.wilson(3, 9)
    assert (summary.samples, summary.clusters, summary.pass_at, summary.majority) == (1, "", {}, None)
    assert "\n" not in table.result(summary)


def test_nothing_is_an_error_and_not_zero():
    with pytest.raises(UserError, match="no predictions"):
        summarize([])


def test_one_run_of_clustered_questions_has_their_interval():
    """Ten templates, each right or wrong as a whole: ten observations, not eighty."""
    metas = [{"template": number // 8} for number in range(80)]
    summary = summarize(sampled(*"r" * 40, *"w" * 40, meta=metas))
    of_ten = stats.wilson(5, 10)
    assert summary.interval.high - summary.interval.low >= of_ten.high - of_ten.low > 0.4
    assert summary.interval.low == pytest.approx(1 - summary.interval.high)
    assert "n = 80 in 10 clusters of questions of one template" in table.result(summary)


@given(st.integers(1, 12).flatmap(lambda k: st.tuples(st.integers(0, k), st.just(k), st.integers(1, k))))
def test_pass_at_is_the_share_of_draws_with_a_right_sample(drawn):
    """The closed form equals the enumeration of all subsets, and the hypergeometric distribution."""
    right, k, tries = drawn
    subsets = list(itertools.combinations([True] * right + [False] * (k - right), tries))
    found = samples.pass_at(right, k, tries)
    assert found == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)
    assert found == pytest.approx(1 - scipy_stats.hypergeom.pmf(0, k, right, tries), abs=1e-9)


@given(st.floats(0.05, 0.95), st.integers(2, 8), st.data())
def test_pass_at_is_unbiased(p, k, data):
    """Over the binomial distribution of right samples its mean is 1 - (1 - p)^tries."""
    tries = data.draw(st.integers(1, k))
    mean = sum(scipy_stats.binom.pmf(c, k, p) * samples.pass_at(c, k, tries) for c in range(k + 1))
    assert mean == pytest.approx(1 - (1 - p) ** tries)


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (["5", "5", "6"], 1),
        (["6", "5", "6"], 0),
        (["5", "6"], 0.5),
        (["5", "5.0", "6", "6", "7"], 0.5),  # equal as numbers
        (["6", None, None], 0),  # no answer does not vote
        ([None, None, "5"], 1),
        ([None, None], 0),
        (["6", "7", "5"], 1 / 3),
    ],
)
def test_the_majority_is_of_equal_answers_and_no_order_counts(answers, right):
    same = lambda one, other: float(one) == float(other)
    for order in itertools.permutations(answers):
        assert samples.majority(order, same, "5") == pytest.approx(right)


def test_measures_of_samples_are_means_over_questions():
    summary = summarize(sampled("rraa", "aabr", "rrrr", "utab"))
    assert (summary.n, summary.samples, summary.accuracy) == (4, 4, 7 / 16)
    assert summary.right + summary.wrong + summary.unparsed + summary.truncated == 16
    assert {tries: of.value for tries, of in summary.pass_at.items()} == {
        1: pytest.approx(7 / 16),
        2: pytest.approx((5 / 6 + 1 / 2 + 1 + 0) / 4),
        4: 3 / 4,
    }
    assert summary.majority.value == pytest.approx((0.5 + 0 + 1 + 0) / 4)
    printed = table.result(summary)
    for text in ("n = 4 × 4 samples", "avg@4 43.8 % (", "pass@4 75.0 % (", "maj@4 37.5 % ("):
        assert text in printed


def test_the_order_of_the_rows_does_not_matter():
    rows = sampled("rraa", "aabr", "rrrr", "utab")
    assert summarize(rows[::-1]) == summarize(rows)


def test_more_samples_do_not_average_away_the_draw_of_the_questions():
    """Questions that are always right or always wrong: eight samples say no more than one."""
    one, eight = (summarize(sampled(*["r" * k] * 12, *["a" * k] * 18)) for k in (1, 8))
    wide = lambda of: of.interval.high - of.interval.low
    assert 0.95 * wide(one) < wide(eight) < 1.15 * wide(one)
    mixed = summarize(sampled(*["rrraaaaa"] * 15, *["rraaaaaa"] * 15))
    assert wide(mixed) < 0.6 * wide(one)


def test_a_question_with_fewer_samples_is_named():
    with pytest.raises(UserError, match=r"question arithmetic/test/1 has 1 samples, others have 2; run evaluate again"):
        summarize(sampled("ra", "r"))


def test_rows_about_one_question_are_a_cluster():
    """Attempts: four at each of ten questions, all alike, are ten observations."""
    problems = [made_runs.problem(number) for number in range(10) for _ in range(4)]
    right = [number % 2 == 0 for number in range(10) for _ in range(4)]
    alike = clusters.share_interval(right, problems)
    assert alike.high - alike.low > 1.7 * (lambda one: one.high - one.low)(stats.wilson(20, 40))
    assert clusters.share_interval(right[::4], problems[::4]) == stats.wilson(5, 10)
    assert np.isclose(alike.low, 1 - alike.high)
