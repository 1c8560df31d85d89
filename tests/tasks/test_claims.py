"""Claims of arithmetic, as students and models write them."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.tasks import gsm8k
from lema_jax.tasks.claims import claims, numbers


@pytest.mark.parametrize(
    ("step", "made"),
    [
        ("5 boxes x $3 = $15", [("5 * 3", 15, True)]),
        ("5 + 6 = 12", [("5 + 6", 12, False)]),
        ("She makes 2*5 = 10*3 = 30 a day", [("2 * 5", 10, True), ("10 * 3", 30, True)]),
        ("30 minutes / 60 minutes/hour * $250/hour = $<<30/60*250=125>>125", [("30 / 60 * 250", 125, True)]),
        ("158 * 1 1/2 = 237 fish", [("158 * (1 + 1 / 2)", 237, True)]),
        ("14 / 1/4 = 56", [("14 / (1 / 4)", 56, True)]),
        ("so 20% of 50 = 10", [("(20 / 100) * 50", 10, True)]),
        ("40/80 = 50%", [("40 / 80", Fraction(1, 2), True)]),
        ("8/3 = 2.67, about", [("8 / 3", Fraction("2.67"), True)]),
        ("8/12 = 1/2 of it", [("8 / 12", Fraction(1, 2), False)]),  # a fraction is not rounded
        ("1/2 + 1/3 = 2/5", [("1 / 2 + 1 / 3", Fraction(2, 5), False)]),
        (
            "10/4 = 5/2 and 60/2 = 30/3 = 10",
            [("10 / 4", Fraction(5, 2), True), ("60 / 2", 30, True), ("30 / 3", 10, True)],
        ),
        ("7 * 12 = 83.99", [("7 * 12", Fraction("83.99"), False)]),
        ("5 + 15 + 1 (koala bear) = 21", [("5 + 15 + 1", 21, True)]),
        ("4(7) - 10 = 18", [("4 * (7) - 10", 18, True)]),
        ("80 000 + 1,500 = 81,500", [("80000 + 1500", 81_500, True)]),
        ("She needs 48 times 2 = 96. 5 x 3 = 16", [("48 * 2", 96, True), ("5 * 3", 16, False)]),
        ("3*X + 129 = 1077, so 3*X = 948 and 3x-5=16", []),
        ("2/2 = x/25", []),
        ("He has 5 apples", []),
        ("10/0 = 3", []),
        ("9**9**9**9 = 5", []),
    ],
)
def test_what_a_step_claims(step, made):
    assert [(claim.expression, claim.stated, claim.holds) for claim in claims(step)] == made


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.long)])
def test_gold_rationales_claim_almost_nothing_false(data_dir, every):
    made = [
        claim
        for problem in gsm8k.load("train", data_dir)[::every]
        for line in problem.rationale.splitlines()
        for claim in claims(line)
    ]
    assert len(made) > 24_000 / every
    # What is left: errors of the published rationales, clock times, and a few readings of ours.
    assert sum(not claim.holds for claim in made) < 0.004 * len(made)


@settings(deadline=None)
@given(st.text(alphabet="0123456789+-*/=().,%$ xXnof\n<>½①", max_size=200) | st.text(max_size=200))
def test_no_text_raises(text):
    claims(text)
    numbers(text)


@pytest.mark.parametrize("step", ["7" * 100_000, "5 + 2 = " + "7" * 5_000, "." + "7" * 5_000 + " = 7", "\n" * 100_000])
def test_digits_without_end_are_no_number_and_no_claim(step):
    """More of them than Python turns into an int."""
    assert claims(step) == []
    assert set(numbers(step)) <= {5, 2, 7}
