r"""Values of expressions, and their equality."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.tasks import evaluator, latex, tokens, values


def tree(text: str) -> latex.Node:
    found = latex.read(tokens.read(text))
    assert found is not None, text
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-2^2", Fraction(-4)),
        ("2^{-3}", Fraction(1, 8)),
        ("\\sqrt{\\frac{9}{4}}", Fraction(3, 2)),
        ("4^{1/2}", Fraction(2)),
        ("(-8)^{2/3}", Fraction(4)),
        ("\\sqrt[3]{-8}", Fraction(-2)),
        ("2(3)(4)", Fraction(24)),
        ("12/3/2", Fraction(2)),
        ("\\binom{6}{3} - 5!", Fraction(-100)),
        ("7!!", Fraction(105)),
        ("||-3| - 5|", Fraction(2)),
        ("2^{4950}", Fraction(2**4950)),
        ("(-1)^{10^{20}}", Fraction(1)),
        ("\\lfloor \\log_2 8 \\rfloor", Fraction(3)),
        ("\\lfloor -\\sqrt{2} \\rfloor", Fraction(-2)),
        ("\\sum_{k=1}^{10} k^2", Fraction(385)),
        ("17 \\mod 5", Fraction(2)),
        ("50\\%", Fraction(1, 2)),
    ],
)
def test_rational_values_are_exact(text, value):
    assert evaluator.Evaluator(100).value(tree(text)) == value


@pytest.mark.parametrize("text", ["1/0", "0^{-1}", "\\log 0", "\\infty - 1", "(-3)!"])
def test_what_has_no_value_is_undefined(text):
    with pytest.raises(evaluator.Undefined):
        evaluator.Evaluator(100).value(tree(text))


@pytest.mark.parametrize("text", ["9^{9^{9}}", "1 - 2^{-9^{9^{9}}}", "x^{10^{10^{10}}}", "(10^{10})!", "e^{10^{10}}"])
def test_a_number_that_no_machine_holds_is_told_of(text):
    with pytest.raises(evaluator.TooLarge):
        evaluator.Evaluator(100).value(tree(text))


def test_a_point_outside_the_real_domain_says_nothing():
    assert values.same(tree("\\sqrt{x}\\sqrt{y}"), tree("\\sqrt{xy}")) is True
    assert values.same(tree("\\sqrt{x^2}"), tree("x")) is False
    assert values.same(tree("\\sqrt{-4}"), tree("2i")) is True


def test_degrees_are_radians_in_angles_alone():
    assert values.same(tree("\\sin 30\\degree"), tree("\\frac12")) is True
    assert values.same(tree("30\\degree"), tree("30")) is True


EXPRESSIONS = st.recursive(
    st.integers(0, 9).map(str) | st.sampled_from(["x", "y", "\\pi", "\\sqrt{2}"]),
    lambda parts: st.tuples(
        parts, st.sampled_from(["{} + {}", "({}) ({})", "\\frac{{{}}}{{{}}}", "{} - ({})"]), parts
    ).map(lambda made: made[1].format(made[0], made[2])),
    max_leaves=8,
)


@pytest.mark.slow
@given(EXPRESSIONS, EXPRESSIONS)
def test_an_expression_is_itself_and_a_sum_commutes(one, other):
    assert values.same(tree(f"({one}) + ({other})"), tree(f"({other}) + ({one})")) is not False
    assert values.same(tree(one), tree(f"({one}) + 10^{{-40}}")) is not True
