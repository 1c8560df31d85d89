"""lm-evaluation-harness's rules, by cases that its users have met."""

import pytest

from lema_jax.tasks import harness_rules


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("So 3 * 4 = 12.\n#### 12", "12", "12"),
        ("#### 5\nNo, #### 12", "5", "12"),  # the first, and the last
        ("####12", None, "12"),
        ("#### 1,234.", "1,234.", "1,234."),
        ("It costs $29.00", None, "$29.00"),
        ("The answer is -7", None, "-7"),
        ("The answer is 12. Good bye!", None, "12."),
        ("The answer is twelve", None, None),
    ],
)
def test_what_a_rule_reads(text, strict, flexible):
    assert harness_rules.answer(text, "strict") == strict
    assert harness_rules.answer(text, "flexible") == flexible


def test_answers_are_compared_as_texts():
    assert harness_rules.right("#### 1,234.", "1234", "strict")
    assert harness_rules.right("It costs $29.", "29", "flexible")
    assert not harness_rules.right("It costs $29.00", "29", "flexible")
    assert not harness_rules.right("The answer is 12", "12", "strict")
