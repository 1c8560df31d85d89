r"""Equality of mathematical answers: kinds of answers, properties, and bounds."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.tasks import equality, evaluator, presentation


def same(one: str, other: str) -> bool | None:
    return equality.same(presentation.plain(one), presentation.plain(other))


CASES = list(map(json.loads, (Path(__file__).parent / "equality.jsonl").read_text(encoding="utf-8").splitlines()))
EQUAL = [(case["kind"], case["answer"], case["gold"]) for case in CASES if case["same"]]
DIFFERENT = [(case["kind"], case["answer"], case["gold"]) for case in CASES if not case["same"]]
ONE_WAY = ("units", "left side")  # an answer may say more than the gold, not less


@pytest.mark.parametrize(("kind", "answer", "gold"), EQUAL)
def test_the_same(kind, answer, gold):
    assert same(answer, gold) is True
    assert same(gold, answer) is True or kind in ONE_WAY


@pytest.mark.parametrize(("kind", "answer", "gold"), DIFFERENT)
def test_different(kind, answer, gold):
    assert not same(answer, gold)
    assert not same(gold, answer) or kind in ONE_WAY


@pytest.mark.parametrize(("one", "other"), [(r"\int_0^1 x \, dx", r"\frac{1}{2}"), (r"\angle C", r"\sqrt{C}")])
def test_what_is_not_read_is_left_open(one, other):
    assert same(one, other) is None


NUMBERS = st.fractions(min_value=-100, max_value=100, max_denominator=50)


@given(NUMBERS)
def test_a_fraction_is_itself_however_written(value):
    written = f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert same(written, f"{value.numerator}/{value.denominator}") is True
    assert same(written, f"\\left({value.numerator}\\right) \\div {value.denominator}") is True
    assert same(f"{written}\\text{{ cm}}^2", written) is True
    assert same(f"x = {written}", written) is True


@given(NUMBERS, NUMBERS)
def test_two_fractions_are_the_same_when_they_are_equal(one, other):
    assert same(f"\\frac{{{one.numerator}}}{{{one.denominator}}}", str(other)) is (one == other)


@pytest.mark.slow
@given(st.lists(NUMBERS, min_size=2, max_size=6, unique=True), st.randoms())
def test_order_counts_in_tuples_alone(values, rng):
    shuffled = rng.sample(values, len(values))
    one, other = (", ".join(map(str, part)) for part in (values, shuffled))
    assert same(one, other) is True
    assert same(f"\\{{{one}\\}}", f"\\{{{other}\\}}") is True
    assert same(f"({one})", f"({other})") is (values == shuffled)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(30, 400))
def test_a_difference_in_the_last_digit_of_a_root_is_seen(top, bottom, digits):
    large = 10 ** (digits // 2)
    assert same(f"\\sqrt{{10^{{{digits // 2 * 2}}} + {top}}}", f"{large}") is False
    assert same(f"\\frac{{\\sqrt{{{bottom**2}}}}}{{{large}}}", f"\\frac{{{bottom}}}{{{large}}}") is True


LINES = st.tuples(*[st.integers(-9, 9)] * 3).filter(lambda line: line[0] and line[1])


@given(LINES, LINES, st.integers(-5, 5).filter(bool))
def test_a_line_is_its_multiples_and_its_slope_and_no_other_line(line, other, factor):
    a, b, c = line
    equation = f"{a}x + {b}y = {c}"
    assert same(f"{a * factor}x + {b * factor}y - {c * factor} = 0", equation) is True
    assert same(f"y = -\\frac{{{a}}}{{{b}}}x + \\frac{{{c}}}{{{b}}}", equation) is True
    parallel = [line[i] * other[j] == line[j] * other[i] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert same("{}x + {}y = {}".format(*other), equation) is all(parallel)


def test_what_a_gold_repeats_counts_as_often_but_not_in_a_set():
    assert same("-1, 3", "-1, 3, 3") is False
    assert same("3, -1, 3", "-1, 3, 3") is True
    assert same("-1, 3, 3", "-1, 3") is True
    assert same("-1, 3", "\\{-1, 3, 3\\}") is True


# --- bounds -----------------------------------------------------------------------------------------------------------

HOSTILE = st.text(max_size=120) | st.text(
    alphabet='0123456789.,:;=^_-+*/!|()[]{}\\ $"&<>xyeifracsqrtpmtextbegin', max_size=120
)
LARGE = [
    "9^{9^{9}}", "3000!" * 160, "2000!" * 20 + "/" + "1999!" * 20, "{" * 100_000, "(" * 900, "1," * 400, "\\pm" * 300,
    "{" * 450 + "1" + "}" * 450, "-" * 900, "\0" * 900, "(x+y+z)^{999}", "\\binom{99999}{5000}", "\\sqrt[99999]{2}",
    "\\sum_{j=1}^{2000}\\sum_{k=1}^{2000} jk", "\\prod_{k=1}^{2000} k^k", "\\sin(10^{5000})", "e^{" * 5 + "5" + "}" * 5,
    ",".join(f"e^{{{k}}}" for k in range(2, 50)), "\\cup".join(f"(\\sqrt{{{k}}},{k})" for k in range(2, 48)),
    "\\sqrt{" * 150 + "2" + "}" * 150, "x<1 or " * 120, "0." + "3" * 900, "1e4999" * 100, "||x|-1|" * 120, "x=" * 400,
    "y=x+" + "x" * 500, "1/" * 450 + "3", "\\text{" * 100, "5 cm " * 150, "_5C_2" * 150, "!" * 900, "3 \\pmod " * 100,
    "\\begin{vmatrix}" + "\\\\".join(["&".join(["\\sqrt{2}+x"] * 4)] * 4) + "\\end{vmatrix}", "½" * 900,
]  # fmt: skip
_MOST_CALLS = 600_000  # of Python functions, for one verdict: some tenths of a second


def calls(work) -> int:
    """How many Python functions `work` calls: the same on every machine."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@given(HOSTILE, HOSTILE)
@settings(max_examples=500)
def test_no_text_raises_and_every_text_equals_itself(one, other):
    assert not presentation.plain(one).strip() or same(one, one) is True
    same(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("text", LARGE, ids=lambda text: text[:30])
@pytest.mark.parametrize("gold", ["5", "x + \\sqrt{2}", "\\{1, 2\\}", None])
def test_no_text_is_much_work(text, gold):
    other = text.replace("1", "2") + "1" if gold is None else gold
    for pair in ((text, other), (other, text)):
        assert calls(lambda pair=pair: same(*pair)) < _MOST_CALLS


@pytest.mark.slow
@given(
    st.lists(st.sampled_from([f"{text[:200]} " for text in LARGE] + ["+", "*", ",", "^", "=", "!", "<"]), max_size=8)
)
@settings(max_examples=100, deadline=None)
def test_no_mixture_of_such_texts_is_much_work(parts):
    text = "".join(parts)
    assert calls(lambda: same(text, f"{text}+1")) < _MOST_CALLS


@pytest.mark.parametrize("gold", ["5", "x", "x = 9^{9}", "(1, 9^{9^{9}})", "9^{9^{8}}"])
def test_numbers_that_no_machine_holds_never_reach_computer_algebra(gold):
    """None would hand the two to a worker that would have to be killed, at the price of some seconds each time."""
    assert same("9^{9^{9}}", gold) is False
    assert same(gold, "9^{9^{9}}") is False


def test_a_large_number_is_itself_wherever_it_stands():
    assert same("\\{5, 9^{9^{9}}\\}", "9^{9^{9}}, 5") is True


def test_the_work_of_a_verdict_is_counted_anew():
    assert same("\\sum_{j=1}^{2000}\\sum_{k=1}^{2000} jk", "5") is False
    assert same("\\sum_{k=1}^{2000} k", "2001000") is True
    with pytest.raises(evaluator.Exhausted):
        evaluator.Evaluator(100).spend(10**9)
    evaluator.allow()
