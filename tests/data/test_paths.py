"""Paths of a question with the same equations, however they are worded; and those with a sum that does not hold."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.data import paths

NUMBERS = st.integers(1, 999)
WORDS = st.from_regex(r"[A-Z][a-z]{1,8} (?:has|sees|counts)", fullmatch=True)
TIMES = st.sampled_from(["*", "x", "×", " * "])


def solution(terms: list[tuple[int, int]], word: str, unit: str, times: str) -> str:
    lines = [f"{word} {a} {unit} {times} ${b} = ${a * b:,} {unit}." for a, b in terms]
    return "\n".join([*lines, "The answer is 1."])


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4), WORDS, WORDS, TIMES, TIMES)
def test_wording_units_and_signs_make_no_other_path(
    terms: list[tuple[int, int]], one: str, other: str, times: str, sign: str
) -> None:
    same = {
        paths.equations(solution(terms, word, unit, by)) for word, unit, by in ((one, "pens", times), (other, "", sign))
    }
    assert len(same) == 1
    assert paths.holds(solution(terms, one, "pens", times))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4), st.data())
def test_another_number_or_order_is_another_path(terms: list[tuple[int, int]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(terms) - 1))
    changed = [(a + 1, b) if number == at else (a, b) for number, (a, b) in enumerate(terms)]
    written = paths.equations(solution(terms, "Ann has", "", "*"))
    assert paths.equations(solution(changed, "Ann has", "", "*")) != written
    if terms != terms[::-1]:
        assert paths.equations(solution(terms[::-1], "Ann has", "", "*")) != written


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("So $x + 2 = 5$, and $x = 3$.", "Hence $x+2=5$; then $x =3$!", True),
        ("So $x + 2 = 5$.", "So $y + 2 = 5$.", False),
        ("Money is kept in a bank.", "money is  kept in a bank.", True),
        ("Money is kept in a bank.", "A bank keeps money.", False),
    ],
)
def test_of_formulas_and_of_words(one: str, other: str, same: bool) -> None:
    assert (paths.equations(one) == paths.equations(other)) is same


def test_a_false_sum_before_a_right_answer_does_not_hold() -> None:
    assert not paths.holds("There are 17 + 13 = 28 children.\nThey form 5 teams.\nThe answer is 5.")
    assert paths.holds("10 / 3 = 3.33 each.")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.integers(1, 4))
def test_at_most_so_many_of_a_question_and_each_once(drawn: list[tuple[int, int]], most: int) -> None:
    question, text = (lambda row: str(row[0])), (lambda row: f"1 + {row[1]} = {1 + row[1]}")
    new = paths.distinct(drawn, question, text)
    assert new == list(dict.fromkeys(drawn))
    kept = paths.first(new, question, most)
    assert all(count <= most for count in Counter(map(question, kept)).values())
    assert all(row in kept for row in new if sum(other[0] == row[0] for other in new) <= most)
