"""The number of a last sentence as an answer: when asked for, where there is one and only one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.records import Verdict
from lema_jax.tasks import answers, last_number
from tests.data import rows


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("He eats 16 + 32 slices.\nIn total, he eats 48 slices that day.", "48"),
        ("First 3, then 4. So she has $1,234.50 left!", "1234.5"),
        ("So the total is **18**", "18"),
        ("So it takes \\(20\\) hours.", "20"),
        ("There are 3 boxes of 4.", None),
        ("So 3 + 4 = 7.", None),
        ("It is 7. I hope that this helps!", None),
        ("between 3-4 hours", None),
        ("There are 3 of them, " + "and more " * 60 + "so 7 in all.", None),
        ("", None),
        ("Well.", None),
    ],
)
def test_the_only_number_of_the_last_sentence(text, number):
    assert answers.last_number(text) == number


@pytest.mark.slow
@given(st.text(max_size=300))
def test_any_text_can_be_read(text):
    found = answers.last_number(text)
    assert found is None or answers.number(found) is not None or ":" in found


def test_only_what_states_no_answer_is_read_anew_and_the_row_says_so():
    unread = rows.attempt(text="In total she has 7 left.", verdict="unparsed", answer=None)
    made = last_number.graded(unread)
    assert (made.answer, made.verdict, made.sampling) == ("7", Verdict.RIGHT, {"read_last_number": True})
    assert (made.id, made.text) == (unread.id, unread.text)
    assert last_number.graded(rows.attempt(text="In total 8.", verdict="unparsed")).verdict is Verdict.WRONG
    for verdict in ("right", "wrong", "truncated", "prompt_too_long"):
        row = rows.attempt(text="In total she has 7 left.", verdict=verdict)
        assert last_number.graded(row) is row
    thinking = rows.attempt(text="<think>In total she has 7 left.", verdict="unparsed")
    assert last_number.graded(thinking) is thinking
    other = rows.attempt(rows.problem(task="math", gold="\\frac{1}{2}"), text="It is 7.", verdict="unparsed")
    assert last_number.graded(other) is other
