r"""Trees of LaTeX expressions."""

from fractions import Fraction

import pytest

from lema_jax.tasks import latex, tokens


def read(text: str) -> latex.Node | None:
    return latex.read(tokens.read(text))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("6\\frac15", ("number", Fraction(31, 5))),
        ("3 1/2", ("number", Fraction(7, 2))),
        ("2\\frac{3}{2}", ("*", ("number", 2), ("/", ("number", 3), ("number", 2)))),
        ("2\\frac{x}{3}", ("*", ("number", 2), ("/", ("variable", "x"), ("number", 3)))),
        ("1.\\overline{09}", ("number", Fraction(12, 11))),
        ("-2^2", ("negative", ("^", ("number", 2), ("number", 2)))),
        ("2^3^2", ("^", ("number", 2), ("^", ("number", 3), ("number", 2)))),
        ("5!!", ("!!", ("number", 5))),
        ("x_{12}", ("variable", "x_12")),
        ("f(2)", ("unknown", "f", ("number", 2))),
        ("\\log_28", ("\\log", ("number", 8), ("number", 2))),
        ("\\sin^2x", ("^", ("\\sin", ("variable", "x")), ("number", 2))),
        ("{5 \\choose 2}", ("binomial", ("number", 5), ("number", 2))),
    ],
)
def test_trees(text, tree):
    assert read(text) == tree


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "(1", "1)", "\\text{a}", "\\unknown{1}", "x = 1", "1, 2", "3 4", "(" * 2000, "\\frac{1}", "1e99999"],
)
def test_what_is_no_expression_has_no_tree(text):
    assert read(text) is None


def test_bound_variables_are_not_free_and_bounds_are_known():
    tree = read("\\sum_{k=1}^{n} k x")
    assert latex.variables(tree) == {"n", "x"}
    assert latex.bounds(tree) == {"n"}
