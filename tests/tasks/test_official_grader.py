"""The authors' grader as its behaviour is described, faults and all, without its dangers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.records import Problem
from lema_jax.tasks import asdiv, gsm8k, math, official_grader


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 5.", 5.0),
        ("The answer is: 5.", 5.0),
        ("so 5", None),
        ("The answer is .", None),
        ("the answer is 5", None),  # the phrase is read letter by letter
        ("The answer is 7. The answer is 8.", 8.0),
        ("The answer is 8.\n\nQ: …\nThe answer is 9.", 8.0),
        ("The answer is 8.\n\nQuestion: …\nThe answer is 9.", 8.0),
        ("The answer is £5.00..", 5.0),
        ("The answer is $1,234 dollars.", 1234.0),
        ("The answer is 3 * 4 = 12.", 12.0),
        ("The answer is 5 + 5>>10", 10.0),
        ("The answer is 3 + 4", 7.0),
        ("The answer is 7 / 2", 3.5),
        ("The answer is 7//", None),
        ("The answer is 5/", 5.0),
        ("The answer is -10", -10.0),
        ("The answer is 40%.", 40.0),
        ("The answer is 40% of 5.", None),
        ("The answer is 4:30", 4.0),
        ("The answer is 5 or 6", 56.0),
        ("The answer is 2 1/2", 10.5),
        ("The answer is **5**", None),
        ('The answer is "5"', 5.0),
        ("The answer is 9**9**9", None),
        ("The answer is 1/0", None),
        ("The answer is five", None),
    ],
)
def test_the_number_that_it_reads(text, number):
    assert official_grader.number(text) == number


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The answer is $\\frac12$.", "\\frac{1}{2}"),
        ("The answer is \\boxed{\\dfrac{1}{2}}.", "\\frac{1}{2}"),
        ("so \\boxed{1/2}", "\\frac{1}{2}"),
        ("so \\boxed{x=5}", "5"),
        ("so \\boxed{abc=5}", "abc=5"),
        ("so \\boxed{0.5}", "\\frac{1}{2}"),
        ("so \\boxed{.25}", "0.25"),
        ("so \\boxed{\\sqrt3}", "\\sqrt{3}"),
        ("so \\boxed{5\\text{ cm}}", "5"),
        ("so \\boxed{\\text{ a} \\text{ b}}", None),
        ("so \\boxed{30^\\circ}", "30"),
        ("so \\boxed{\\$5\\%}", "5"),
        ("so \\boxed{\\left(1, 2\\right)}", "(1,2)"),
        ("so \\fbox{5}", None),
        ("so \\boxed 5", None),
        ("so \\boxed{5", None),
        ("nothing", None),
        ("so \\boxed{5} Question: what? \\boxed{6}", "5"),
        ("\\frac", None),
    ],
)
def test_the_normal_form_that_it_reads(text, form):
    assert official_grader.latex(text) == form


CHOICES = ("bank", "library", "department store", "mall", "new york")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("The answer is library.", "library"),
        ("The answer is the library...", "library"),
        ("Because of money. The answer is: bank", "bank"),
        ("", "bank"),  # the first of the shortest: how an empty answer scores
    ],
)
def test_the_nearest_choice_wins(text, choice):
    assert official_grader.choice(text, CHOICES) == choice


def problem(gold: str) -> Problem:
    return Problem(id="p", task="gsm8k", split="test", question="q", gold=gold)


def test_verdicts_compare_as_the_authors_do():
    assert gsm8k.official_grader("I do not know", problem("0"))  # no answer is 0
    assert not gsm8k.official_grader("The answer is 0.333", problem("0.3333"))
    assert asdiv.official_grader("The answer is 0.333", problem("0.3333"))
    assert gsm8k.official_grader("The answer is 5,600.", problem("5600"))
    assert math.official_grader("The answer is \\frac12", problem("\\frac{1}{2}"))
    assert not math.official_grader("The answer is 0.50", problem("\\frac{1}{2}"))
    assert not math.official_grader("no box", problem("\\text{ a}\\text{ b}"))


def test_dollar_signs_go_from_a_label_before_its_backslashes_are_read():
    assert math.official_grader("The answer is $\\$6$.", problem("\\$6"))  # both are `\\6`
    assert not math.official_grader("so \\boxed{\\$6}", problem("\\$6"))  # without the phrase `\\$` goes whole
    assert not math.official_grader("The answer is 6.", problem("\\$6"))


def test_the_label_is_the_last_box_alone():
    two = problem("3, 5").model_copy(update={"rationale": "It is $\\boxed{3}$ or $\\boxed{5}$."})
    assert math.official_grader("The answer is 5.", two)
    assert not math.official_grader("The answer is 3, 5.", two)


def test_the_papers_own_gold_texts_are_right(data_dir):
    """The released file of GSM8K's test questions ends each gold text in the phrase that the grader reads."""
    from lema_jax.tasks import sources

    rows = [row for _, row in sources.read_jsonl(data_dir / "lema" / "gsm8k_test.jsonl", ("prompt", "completion"))]
    for row, gold in zip(rows, gsm8k.load("test", data_dir)):
        assert gsm8k.official_grader(row["completion"], gold)


@given(st.text(max_size=200) | st.text(alphabet="The answer is 0123456789.,=>*/+-%:$\\boxed{}frac", max_size=200))
@settings(max_examples=300)
def test_no_text_raises(text):
    for statement in (text, "The answer is " + text):
        official_grader.number(statement)
        official_grader.latex(statement)
        assert official_grader.choice(statement, CHOICES) in CHOICES
