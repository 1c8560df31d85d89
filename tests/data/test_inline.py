"""A mistake and its repair in one chain of thought: what is kept, what is right at the end, what has no loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import tasks
from lema_jax.data import encode, examples, inline, tokenizer
from lema_jax.data.encode import Limits
from lema_jax.records import Correction, Verdict
from lema_jax.tasks.steps import split_steps
from tests.data import rows

LINES = st.lists(
    st.from_regex(r"[A-Z][a-zé ,]{2,20} \d{1,3} \+ \d{1,3} = \d{1,4}\.", fullmatch=True), min_size=2, max_size=6
)


def correction(steps: list[str], at: int, explanation: str) -> Correction:
    wrong = rows.attempt(text="\n".join(steps))
    split = split_steps(wrong.text)
    return rows.correction(wrong, step=min(at, len(split)), explanation=explanation)


@pytest.mark.slow
@given(LINES, st.integers(1, 6), st.from_regex(r"[A-Z][a-z 0-9+=é]{1,40}\.", fullmatch=True))
def test_it_goes_wrong_where_the_student_did_and_ends_right(steps: list[str], at: int, explanation: str) -> None:
    row = correction(steps, at, explanation)
    assert row.step is not None
    attempt = split_steps(row.attempt.text)
    for render in (inline.repaired, inline.restarted):
        made = render(row)
        lines = made.completion.split("\n")
        assert lines[: row.step] == attempt[: row.step]
        assert explanation in lines[row.step]
        assert lines[-len(row.steps) :] == list(row.steps)
        assert made.prompt == examples.cot(rows.problem(), "", "gold").prompt  # asked plainly
        assert tasks.grade(row.attempt.problem, made.completion, truncated=False)[1] is Verdict.RIGHT
    again = inline.restarted(row).completion.split("\n")[row.step + 1 :]
    assert again == [*attempt[: row.step - 1], *row.steps]


@pytest.mark.slow
@given(LINES, st.integers(1, 6))
def test_without_weight_the_wrong_step_alone_has_no_loss(steps: list[str], at: int) -> None:
    row = correction(steps, at, "That is not so.")
    assert row.step is not None
    made = inline.repaired(row)
    unweighted = inline.weighted(made, row, 0)
    ((start, end),) = unweighted.without_loss
    assert made.completion[start:end] == split_steps(row.attempt.text)[row.step - 1]
    assert inline.weighted(made, row, 1) == made
    assert unweighted.id != made.id


def test_of_a_question_with_choices_the_whole_answer_comes_first() -> None:
    row = rows.commonsense()
    made = inline.repaired(row)
    answer = row.attempt.text.strip()
    assert made.completion.startswith(f"{answer}\nWait, I made a mistake in this answer. {row.explanation}\n")
    assert made.completion.endswith("The answer is bank.")
    assert inline.weighted(made, row, 0).without_loss == ((0, len(answer)),)


def test_tokens_of_the_wrong_step_have_weight_0_and_all_others_of_the_completion_1() -> None:
    row = rows.correction()
    full = inline.repaired(row)
    made = [full, inline.weighted(full, row, 0)]
    words = tokenizer.train_bpe([row.completion for row in made] + [full.prompt], 800)
    weighted, unweighted = encode.encode(made, words, Limits())
    assert weighted is not None and unweighted is not None  # noqa: PT018
    assert (weighted.tokens == unweighted.tokens).all()
    dropped = weighted.tokens[(weighted.weights == 1) & (unweighted.weights == 0)]
    wrong = split_steps(row.attempt.text)[1]
    said = words.decode(dropped)
    assert said.strip() in wrong
    assert len(said.strip()) > len(wrong) - 8  # a token over the edge keeps its loss
    assert (unweighted.weights <= weighted.weights).all()
    assert unweighted.weights[-1] == 1  # EOS
