r"""Values of LaTeX expressions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.tasks import latex


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6\\frac15", Fraction(31, 5)),
        ("\\frac 34", Fraction(3, 4)),
        ("-2^2", Fraction(-4)),
        ("2^{-3}", Fraction(1, 8)),
        ("\\sqrt{\\frac{9}{4}}", Fraction(3, 2)),
        ("4^{1/2}", Fraction(2)),
        ("2(3)(4)", Fraction(24)),
        ("12/3/2", Fraction(2)),
        ("1.\\overline{09}", Fraction(12, 11)),
        ("\\binom{6}{3} - 5!", Fraction(-100)),
        ("||-3| - 5|", Fraction(2)),
        ("2^{4950}", Fraction(2**4950)),
    ],
)
def test_rational_values_are_exact(text, value):
    assert latex.values(text) == (value,)


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "(1", "1)", "\\text{a}", "\\unknown{1}", "1/0", "3^{50000}", "x = 1", "1, 2", "(" * 2000, "\\frac{1}"],
)
def test_what_is_no_expression_has_no_value(text):
    assert latex.values(text) is None


@pytest.mark.parametrize("text", ["9^{9^{9}}", "1 - 2^{-9^{9^{9}}}", "x^{10^{10^{10}}}", "(10^{10})!"])
def test_a_number_that_no_machine_holds_is_told_of(text):
    with pytest.raises(latex.TooLarge):
        latex.values(text)


def test_a_power_of_one_is_no_large_number():
    assert latex.values("(-1)^{10^{20}}") == (1,)


def test_an_expression_with_variables_is_tried_at_several_points():
    assert len(latex.values("x^2 + y_1")) == latex.POINTS
    assert latex.values("x_1") == latex.values("x_{1}") != latex.values("x_2")


EXPRESSIONS = st.recursive(
    st.integers(0, 9).map(str) | st.sampled_from(["x", "y", "\\pi"]),
    lambda parts: st.tuples(
        parts, st.sampled_from(["{} + {}", "({}) ({})", "\\frac{{{}}}{{{}}}", "{} - ({})"]), parts
    ).map(lambda made: made[1].format(made[0], made[2])),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_an_expression_less_itself_is_zero(text):
    if (values := latex.values(text)) and max(abs(complex(value)) for value in values) < 1e6:
        difference = latex.values(f"({text}) - ({text})")
        assert all(abs(complex(value)) < 1e-6 for value in difference)
