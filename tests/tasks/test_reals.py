r"""Sets of real numbers: the same set in all its ways of writing."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from lema_jax.tasks import evaluator, presentation, reals, tokens


def read(text: str) -> reals.Reals:
    evaluator.allow()
    found = reals.read(tokens.read(presentation.plain(text)))
    assert found is not None, text
    return found


ENDS = st.lists(st.integers(-20, 20), min_size=2, max_size=6, unique=True).map(sorted)
CLOSED = st.lists(st.booleans(), min_size=6, max_size=6)


def intervals(ends: list[int], closed: list[bool]) -> list[str]:
    pairs = zip(ends[::2], ends[1::2])
    return [f"{'(['[closed[2 * i]]}{a}, {b}{')]'[closed[2 * i + 1]]}" for i, (a, b) in enumerate(pairs)]


def inequalities(ends: list[int], closed: list[bool]) -> list[str]:
    pairs = zip(ends[::2], ends[1::2])
    signs = [("<", "\\le")[one] for one in closed]
    return [f"{a} {signs[2 * i]} x {signs[2 * i + 1]} {b}" for i, (a, b) in enumerate(pairs)]


def has(one: reals.Reals, number: float) -> bool:
    return any(
        (piece.low < number or (piece.low == number and piece.low_closed))
        and (number < piece.high or (piece.high == number and piece.high_closed))
        for piece in one
    )


@given(ENDS, CLOSED, st.randoms())
def test_intervals_are_inequalities_in_any_order(ends, closed, rng):
    union = intervals(ends, closed)
    text = " \\text{ or } ".join(rng.sample(inequalities(ends, closed), len(union)))
    assert reals.same(read(" \\cup ".join(union)), read(text))
    assert reals.same(read(" \\cup ".join(union)), read(f"\\{{x \\mid {text}\\}}"))


@given(ENDS, CLOSED, ENDS, CLOSED, st.integers(-42, 42))
def test_unions_intersections_and_differences_have_the_elements_that_they_should(ends, closed, others, also, twice):
    one, other = " \\cup ".join(intervals(ends, closed)), " \\cup ".join(intervals(others, also))
    number = Fraction(twice, 2)
    in_one, in_other = has(read(one), float(number)), has(read(other), float(number))
    assert has(read(f"{one} \\cup {other}"), float(number)) == (in_one or in_other)
    assert has(read(f"({one}) \\cap ({other})"), float(number)) == (in_one and in_other)
    assert has(read(f"({one}) \\setminus ({other})"), float(number)) == (in_one and not in_other)
    assert has(read(f"\\mathbb{{R}} \\setminus ({one})"), float(number)) != in_one


@given(st.integers(-9, 9).filter(bool), st.integers(-9, 9), st.sampled_from(["<", ">", "\\le", "\\ge", "\\ne"]))
def test_a_linear_inequality_is_solved(a, b, sign):
    holds = {"<": float.__lt__, ">": float.__gt__, "\\le": float.__le__, "\\ge": float.__ge__, "\\ne": float.__ne__}[
        sign
    ]
    found = read(f"{a}x + {b} {sign} 0")
    assert all(has(found, number / 4) == holds(a * number / 4 + b, 0.0) for number in range(-40, 41))
