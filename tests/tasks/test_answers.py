"""Reading the final number: the forms people and models write, and any text at all."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.tasks import answers, cues, expressions

STATED = [
    ("The answer is 5.", "5"),
    ("the Answer Is 5", "5"),
    ("The answer is: 5", "5"),
    ("The answer is:\n\n5", "5"),
    ("Answer: 5", "5"),
    ("#### -10", "-10"),
    ("A: 5600", "5600"),
    ("A: -1.8 billion", "-1800000000"),
    (" 64.00", "64"),
    ("So \\boxed{10{,}000}", "10000"),
    ("The answer is \\boxed 5.", "5"),
    ("The final answer is: $\\boxed{\\frac{5}{2}}$", "2.5"),
    ("The answer is 0.", "0"),
    ("The answer is 007", "7"),
    ("The answer is .5", "0.5"),
    ("The answer is −5", "-5"),
    # the last statement counts, unless it has no number, or another question has begun
    ("The answer is 7. The answer is 8.", "8"),
    ("The answer is 8. I hope the answer is clear.", "8"),
    ("The answer is 8.\n\nQ: Tom has 3.\nA: 4", "8"),
    ("The answer is 8.\n\nQuestion: Tom has 3.\nAnswer: The answer is 4.", "8"),
    # currency, thousands, percent, units, marks
    ("The answer is $57.", "57"),
    ("The answer is $29.00", "29"),
    ("The answer is -$5", "-5"),
    ("The answer is $-5", "-5"),
    ("The answer is 5$", "5"),
    ("The answer is US$ 5", "5"),
    ("The answer is \\$5", "5"),
    ("The answer is $1,234.50.", "1234.5"),
    ("The answer is 10,000,000.", "10000000"),
    ("The answer is 1 000", "1000"),
    ("The answer is 40%.", "40%"),
    ("The answer is 5\\%", "5%"),
    ("The answer is 40 percent", "40%"),
    ("The answer is $5 \\text{ dollars}$", "5"),
    ("The answer is 5 million dollars", "5000000"),
    ("The answer is 5 dollars and 50 cents.", "5 dollars and 50 cents"),
    ("The answer is $3 and 50 cents.", "3 and 50 cents"),
    ("The answer is 2 hours and 30 minutes", "2 hours and 30 minutes"),
    ("The answer is 3 dozen eggs.", "3 dozen"),
    ("The answer is 1.000.000", "1000000"),
    ("The answer is 1.234,50 euros", "1234.5"),
    ("The answer is 1,00,000", "100000"),
    ("The answer is 1'000", "1000"),
    ("The answer is 2,5", "2.5"),
    ("The answer is 5k", "5000"),
    ("The answer is $5M", "5000000"),
    ("The answer is 5.5bn", "5500000000"),
    ("The answer is 5 m", "5"),
    ("The answer is 5m", "5"),
    ("The answer is negative 5", "-5"),
    ("The answer is a change of -5", "-5"),
    ("The answer is 20 minus 5", "15"),
    ("The answer is 12 cm^2", "12"),
    ("The answer is 12 cm²", "12"),
    ("The answer is 2³", "8"),
    ("The answer is 5, not 6", "5"),
    ("The answer is 5 miles by 4:30", "5"),
    ("The answer is $x_1 = 5$", "5"),
    ("The answer is 18 dollars for 3 days.", "18"),
    ("The answer is 12 inches (1 foot)", "12"),
    ("The answer is 48 (April) + 24 (May) = 72 clips.", "72"),
    ("The answer is 48 (April) + 24 (May).", "72"),
    ("The answer is 48 (in April) - 24 (in May) = 24", "24"),
    ("The answer is 12 * (3 + 4) = 84.", "84"),
    ("The answer is 12 * (3 + 4).", "84"),
    ("The answer is 12 (3 * 4) - so it is.", "12"),
    ("The answer is 16-3-4=<<16-3-4=9>>9 eggs", "9"),
    ("The answer is **5**.", "5"),
    ("**The answer is 5.**", "5"),
    ("The answer is *5*", "5"),
    # fractions, mixed numbers, scientific notation
    ("A: 3/4", "0.75"),
    ("The answer is 3/4 of the pie", "0.75"),
    ("The answer is 1/3.", "1/3"),
    ("The answer is 2 1/2.", "2.5"),
    ("The answer is 2 and 1/2", "2.5"),
    ("The answer is ½", "0.5"),
    ("The answer is 2½ cups", "2.5"),
    ("The answer is \\frac12", "0.5"),
    ("The answer is 1.5e3", "1500"),
    ("The answer is 1.5 x 10^3.", "1500"),
    ("The answer is $1.5 \\times 10^{3}$.", "1500"),
    # words
    ("The answer is five.", "5"),
    ("The answer is minus five", "-5"),
    ("The answer is twenty-five apples.", "25"),
    ("The answer is one hundred and five", "105"),
    ("The answer is two thousand three hundred", "2300"),
    # sums
    ("The answer is 3 * 4 = 12 apples.", "12"),
    ("The answer is 3 * 4", "12"),
    ("The answer is 20 - 5.", "15"),
    ("The answer is x = 5.", "5"),
    ("The answer is 10 because 5 + 5 = 10 and 3 + 2 = 5.", "10"),
    # times and ratios
    ("The answer is 4:30 p.m.", "4:30 pm"),
    ("The answer is 3:2", "3:2"),
]


@pytest.mark.parametrize(("text", "answer"), STATED)
def test_one_number_is_read(text, answer):
    assert answers.final_number(text) == answer
    assert answers.same_number(answer, answer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "She has 5 apples left",
        "The answer is clear.",
        "The answer is none.",
        "The answer is 5 or 6.",
        "The answer is 5, 6",
        "The answer is 5-6",
        "Answer: The 4 friends each pay $20.",  # which of two numbers is not said
        "**Answer:** Each of the 4 friends pays **$20**.",
        "The answer is in 3 days Ann has 20 apples.",
        "Answer: It will take 4 people 20 days.",
        "The answer is between 5 and 6",
        "The answer is 10 to 1",
        "The answer is 5 apples and 3 pears.",
        "The answer is 5 remainder 2",
        "The answer is 5 R2",
        "The answer is Tom 5 and Jim 7",
        "The answer is that Tom has 5 apples, and Jim has 7",
        "The answer is not 5",
        "The answer can't be 5",
        "If the answer is 5, Tom has 7",
        "\\boxed{5} and \\boxed{7}",
        "The answer is 5\\pi",
        "The answer is 2\\sqrt{3}",
        "The answer is $x=5$ and $y=3$",
        "The answer is 5x",
        "The answer is 1.00.000",
        "The answer is 1,2,3",
        "The answer is 9**9**9",
        "The answer is 9^{9^{9}}",
        "The answer is 1e999999999",
        "The answer is 5/0",
        "The answer is " + "9" * 5_000,
        "\n" * 20_000,
    ],
)
def test_no_number_or_several_are_no_answer(text):
    assert answers.final_number(text) is None


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("5600", "5,600", True),
        ("0", "0", True),
        ("0.0", "0", True),
        ("0.1", "1/10", True),
        ("0.333", "1/3", False),
        ("0.3333333333333333", "1/3", False),
        ("50%", "50", True),
        ("50%", "0.5", True),
        ("0.5", "50", False),
        ("10", "-10", False),
        ("4:30 pm", "4:30", True),
        ("4:30 pm", "4:30 am", False),
        ("6:4", "3:2", True),
        ("6:40", "3:20", False),
        ("3:2", "3", False),
        ("no", "no", False),
    ],
)
def test_equality_is_exact(answer, gold, equal):
    assert answers.same_number(answer, gold) == equal


@given(st.text(max_size=300) | st.text(alphabet="0123456789.,:/%$-+*^=(){}\\boxedfrac answeris#A\n½", max_size=300))
@settings(max_examples=500)
def test_no_text_raises_and_what_is_read_equals_itself(text):
    for statement in (text, f"The answer is {text}", f"\\boxed{{{text}}}"):
        answer = answers.final_number(statement)
        assert answer is None or answers.same_number(answer, answer)


LETTERS = st.characters(exclude_categories=("Nd", "Nl", "No", "Cs"), exclude_characters="#<`~$\\:")
PROSE = st.text(alphabet=LETTERS, max_size=200).filter(lambda text: not list(cues.statements(text)))


@given(
    before=PROSE,
    after=PROSE,
    value=st.fractions(max_denominator=1000),
    stated=st.sampled_from(["The answer is", "####"]),
)
def test_prose_around_a_statement_changes_nothing(before, after, value, stated):
    plain = f"{stated} {expressions.written(value)}"
    assert (
        answers.final_number(f"{before}\n{plain}.\n{after}")
        == answers.final_number(plain)
        == expressions.written(value)
    )


@given(st.fractions(max_denominator=10**6))
def test_a_written_number_reads_as_itself(value):
    assert answers.number(expressions.written(value)) == value


@given(st.integers(-(10**15), 10**15))
def test_thousands_separators_and_decimals_keep_the_value(value):
    assert answers.number(f"${value:,}.00 dollars".replace("$-", "-$")) == value


@pytest.mark.parametrize(
    "text", ["{" * 100_000, "\\boxed{" * 20_000, "0" * 100_000, "The answer is " * 10_000, "\0" * 1000]
)
def test_long_texts_end_at_once(text):
    assert answers.final_number(text) is None
    assert answers.final_number(text + " The answer is 5.") in ("5", None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * (3 + 4.5)", Fraction(15)),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("-2 ** 2", Fraction(-4)),
        ("7 // 2", Fraction(3)),
        ("2 ** -1", Fraction(1, 2)),
        ("1 / 0", None),
        ("9 ** 9 ** 9", None),
        ("2 ** 0.5", None),
        ("__import__('os')", None),
        ("(" * 150, None),
        ("1" * 400, None),
        ("True", None),
        ("\0", None),
    ],
)
def test_arithmetic_is_exact_and_bounded(text, value):
    assert expressions.exact(text) == value


def test_floating_arithmetic_follows_python():
    assert expressions.floating("0.1 + 0.2") == 0.1 + 0.2
    assert expressions.floating("7 / 2") == 3.5
