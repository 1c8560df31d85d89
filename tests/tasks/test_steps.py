"""Reasoning paths as steps."""

from hypothesis import given
from hypothesis import strategies as st

from lema_jax.tasks.steps import number_steps, original_solution, split_steps


def test_lines_are_steps_and_labels_go():
    assert split_steps("Step 1: Tom has 5.\n\n2. He buys 3.\n**Step 3:** The answer is 8.") == [
        "Tom has 5.",
        "He buys 3.",
        "The answer is 8.",
    ]


def test_a_paragraph_is_cut_at_its_sentences():
    assert split_steps("Mrs. Lee pays 1.5 dollars. That is $3 for 2. The answer is 3.") == [
        "Mrs. Lee pays 1.5 dollars.",
        "That is $3 for 2.",
        "The answer is 3.",
    ]


def test_a_number_at_the_beginning_is_no_label():
    assert split_steps("64.00\n12 + 3 = 15") == ["64.00", "12 + 3 = 15"]


WORDS = st.lists(st.text(alphabet="abc +=", min_size=1).map(lambda text: f"x{text}y"), min_size=2, max_size=6)


@given(WORDS)
def test_numbered_steps_split_into_themselves(steps):
    assert split_steps(number_steps(steps)) == steps


def test_the_block_that_teacher_and_student_share():
    assert original_solution("How many?", ["One.", "The answer is 1."]) == (
        "Question: How many?\nOriginal Solution:\n{\nStep 1: One.\nStep 2: The answer is 1.\n}\nIncorrect Step:"
    )
