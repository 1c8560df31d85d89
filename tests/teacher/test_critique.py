"""Critiques: what is read of a reply, which are kept, and the offline teacher's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.errors import UserError
from lema_jax.records import Attempt, Verdict
from lema_jax.tasks import thinking
from lema_jax.teacher import critique, prompting
from tests.data import rows

RIGHT = rows.attempt(text=rows.RIGHT, verdict="right", answer="7")
RATIONALE = "3 * 4 = <<3*4=12>>12\n12 - 5 = <<12-5=7>>7"


def judged(attempt: Attempt, text: str, **more: str) -> tuple[bool | None, str]:
    row = critique.row("c", attempt, "t", text, **more)
    return row.right, row.rejected


@given(
    st.text(max_size=200),
    st.booleans(),
    st.sampled_from(["Conclusion: {}.", "**Conclusion:** {}", "## Conclusion: {}"]),
)
def test_the_last_conclusion_counts_and_the_reasons_stand_before_it(text: str, right: bool, form: str) -> None:
    reasons, said = critique.read(f"Fine so far.\n{text}\n\n" + form.format("right" if right else "wrong"))
    if thinking.spoken(text).text == text and "{" not in text and "`" not in text and "~" not in text:
        assert said is right
        assert "Conclusion" not in reasons or "onclusion" in text or "onclusion" in text.casefold()


@given(st.text(max_size=300))
def test_any_reply_is_a_row(text: str) -> None:
    row = critique.row("c", rows.attempt(), "t", text)
    assert row.rejected or row.right is False


@pytest.mark.parametrize(
    ("end", "right"),
    [
        ("Conclusion: right.", True),
        ("Conclusion: The solution is correct.", True),
        ("Conclusion:\nwrong", False),
        ("Conclusion: not correct", False),
        ("Conclusion: The solution isn't right.", False),
        ("Verdict: INCORRECT", False),
        ("Conclusion: right or wrong?", None),
        ("Conclusion: it depends", None),
        ("Conclusion: wrong. The right answer is 12.", False),
        ("Conclusion: incorrect, since the correct value is 12.", False),
        ("Conclusion: It reaches the right answer.", True),
        ("Conclusion: It is not the right answer.", False),
        ("Conclusion: nothing wrong.", True),
        ("Conclusion: The solution is not wrong.", True),
        ("Conclusion: I see no incorrect step.", True),
        ("Conclusion: wrong, not right.", False),
        ("Conclusion: It fails to be correct.", False),
        ("Conclusion: partially correct.", None),
        ("Conclusion: without doubt right.", True),
        ("Conclusion: There are no errors, and it is correct", True),
        ("Conclusion: Not only wrong but badly wrong.", False),
        ("Conclusion: right.\n\nVerdict\nThe student should look for wrong sums.", True),
        ("### Conclusion\nThe solution is wrong.", False),
        ("**Conclusion**\n\nwrong", False),
        ("Conclusion：wrong.", False),
        ("Conclusion — wrong.", False),
        ("Conclusion: Step 1 is right. The solution is wrong.", None),
        ("The solution is right.", None),
        ("", None),
    ],
)
def test_how_models_conclude(end: str, right: bool | None) -> None:
    assert critique.read(f"Step 1 is right.\n{end}")[1] is right


@pytest.mark.parametrize(
    ("said", "reasons"),
    [
        ("The sum is \\boxed{17}", "The sum is \\boxed{17}"),
        ("It is\n\\frac{1}{2}", "It is\n\\frac{1}{2}"),
        ("{\nStep 2 adds \\frac{1}{2}\n}", "Step 2 adds \\frac{1}{2}"),
        ("{Step 2 adds.}", "Step 2 adds."),
        ("{Step 2 adds \\frac{1}{2}.}", "Step 2 adds \\frac{1}{2}."),
        ("{\nStep 2 adds.", "Step 2 adds."),
    ],
)
def test_braces_around_the_reasons_go_and_those_of_formulas_stay(said: str, reasons: str) -> None:
    assert critique.read(f"{said}\nConclusion: wrong.") == (reasons, False)


@pytest.mark.parametrize(
    "cue",
    [
        "",
        "Critique: ",
        "**Critique:**\n",
        "## Critique\n\n",
        "Here is my critique:\n\n",
        "Here's a critique of the solution: ",
        "**Here is the critique:**\n",
        "Sure! Here is a step-by-step critique of the student's solution:\n\n",
        "Let me write a step-by-step critique.\n\n",
        "Let me write a step-by-step critique of this solution:\n",
    ],
)
@pytest.mark.parametrize(
    "reasons",
    [
        "Step 1 is wrong: 3 * 4 = 12.",
        "**Step 1** is wrong.\n\nMy critique: 3 * 4 = 12.",
        "This step, as a critique would say, is wrong: it is 12.",
    ],
)
def test_what_announces_a_critique_is_no_part_of_it_and_nothing_else_goes(cue: str, reasons: str) -> None:
    assert critique.read(f"{cue}{reasons}\n\nConclusion: wrong.") == (reasons, False)


def test_what_disagrees_with_the_verdict_is_rejected() -> None:
    said = "Step 1 holds.\nConclusion: {}."
    assert judged(RIGHT, said.format("right")) == (True, "")
    assert judged(RIGHT, said.format("wrong")) == (False, "wrong_judgement")
    assert judged(rows.attempt(), said.format("wrong")) == (False, "")
    assert judged(rows.attempt(), said.format("right")) == (True, "wrong_judgement")
    assert judged(rows.attempt(), "Step 1 holds.") == (None, "no_judgement")
    assert judged(rows.attempt(), "Conclusion: wrong.") == (False, "no_reasons")
    assert judged(rows.attempt(), "The reference answer is 7.\nConclusion: wrong.") == (False, "tells_answer")
    assert judged(rows.attempt(), said.format("wrong"), failed="length") == (False, "length")
    assert judged(rows.attempt(), "<think>so it goes on") == (None, "cut_off")


def test_the_offline_teacher_knows_a_right_choice() -> None:
    problem = rows.problem(
        1, question="Who has more?", gold="Bo", choices=("Al", "Bo"), rationale="Al has 3.\nBo has 4."
    )
    right, wrong = (rows.attempt(problem, text=f"Bo has 4.\nThe answer is {who}.") for who in ("Bo", "Al"))
    assert critique.reply(right).endswith("Conclusion: right.")
    assert critique.reply(wrong).endswith("Conclusion: wrong.")


def test_the_offline_teacher_judges_by_itself() -> None:
    of = rows.problem(rationale=RATIONALE)
    right = rows.attempt(of, text=rows.RIGHT, verdict="right", answer="7")
    lucky = rows.attempt(of, text="3 * 4 = 13\n13 - 6 = 7\nThe answer is 7.", verdict="right", answer="7")
    wrong = rows.attempt(of)
    assert critique.reply(right) == (
        "Step 1 is right: 3 * 4 = 12.\nStep 2 is right: 12 - 5 = 7.\nStep 3 is right.\nConclusion: right."
    )
    assert critique.reply(wrong) == (
        "Step 1 is right: 3 * 4 = 12.\nThere is a mistake in step 2. The arithmetic is wrong: 12 - 5 is 7, not 8.\n"
        "Conclusion: wrong."
    )
    for attempt, fault in ((right, ""), (wrong, ""), (lucky, "wrong_judgement")):
        assert judged(attempt, critique.reply(attempt))[1] == fault
    with pytest.raises(UserError, match="has no rationale"):
        critique.reply(rows.attempt(rows.problem(rationale="")))


@pytest.mark.parametrize("family", ["gsm8k", "math", "csqa"])
def test_worked_examples_are_critiques_that_are_kept(family: str) -> None:
    choice = rows.commonsense().attempt.problem
    of = {"gsm8k": rows.problem(), "math": rows.problem(task="math", gold="\\pi"), "csqa": choice}[family]
    prompt = prompting.load(of, form=prompting.CRITIQUE)
    assert prompt.id.startswith(f"critique_{family}@")
    assert len(prompt.examples) == 4
    right = [critique.read(said)[1] for _, said in prompt.examples]
    assert right.count(True) == right.count(False) == 2
    attempt = rows.attempt(of, text="It is 7.\nThe answer is 7.")
    *_, case = prompting.messages(prompt, attempt, prompting.CRITIQUE)
    assert f"Question: {of.question}\n" in case["content"]
    assert case["content"].endswith('"Conclusion: wrong."')
    assert case["role"] == "user"
    assert "Verdict" not in case["content"] and Verdict.WRONG not in attempt.text  # noqa: PT018
