"""The paper's formats, to the byte."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import tasks
from lema_jax.data import curate, examples
from lema_jax.data.examples import Part
from lema_jax.records import Verdict
from tests.data import rows

INSTRUCTION = (
    "For the following math word problems, the original solutions may contain errors. Please identify the incorrect "
    "step in each solution, explain why it is incorrect, and provide the correct solution starting from that step."
)
QUESTION = rows.problem().question
SOLUTION = "Step 2: She eats 5, so 12 - 5 = 7 are left.\nStep 3: The answer is 7.\n}"


def test_chain_of_thought() -> None:
    made = examples.cot(rows.problem(), " 3 * 4 = 12\nThe answer is 7.\n", "gold")
    assert made.prompt == (
        f"Please solve the following math problem.\nQuestion: {QUESTION}\nAnswer: Let's think step by step.\n"
    )
    assert made.completion == "3 * 4 = 12\nThe answer is 7."
    assert (made.kind, made.source, made.problem_id) == ("cot", "gold", "gsm8k/train/0")


def test_correction() -> None:
    made = examples.correction(rows.correction())
    assert made.prompt == (
        f"{INSTRUCTION}\n\nQuestion: {QUESTION}\nOriginal Solution:\n{{\n"
        "Step 1: Ann has 3 * 4 = 12 apples.\nStep 2: She eats 5, so 12 - 5 = 8 are left.\nStep 3: The answer is 8.\n"
        "}\nIncorrect Step:"
    )
    assert made.completion == f"Step 2.\nExplanation: 12 - 5 is 7.\nCorrect Solution:\n{{\n...\n{SOLUTION}"
    assert (made.kind, made.source) == ("correction", "reference")


def test_instruction_is_the_authors(data_dir: Path) -> None:
    authors = (data_dir / "lema" / "prompt_correction_gsm8k.txt").read_text()
    assert authors.startswith(f"{INSTRUCTION}\n\nQuestion: ")
    assert examples.correction(rows.correction()).prompt.startswith(f"{INSTRUCTION}\n\nQuestion: ")


def test_a_mistake_in_the_first_step_leaves_no_dots() -> None:
    made = examples.correction(rows.correction(step=1))
    assert "\nCorrect Solution:\n{\nStep 1: She eats" in made.completion
    assert "..." not in made.completion


def test_the_answer_is_stated_even_where_the_teacher_did_not() -> None:
    made = examples.correction(rows.correction(steps=rows.CORRECTED[:1]))
    assert made.completion.endswith(SOLUTION)


def test_ablations_leave_out_their_part_and_do_not_ask_for_it() -> None:
    row = rows.correction()
    without = {part: examples.correction(row, part) for part in Part}
    assert without[Part.STEP].completion == f"12 - 5 is 7.\nCorrect Solution:\n{{\n...\n{SOLUTION}"
    assert without[Part.STEP].prompt.endswith("}\nExplanation:")
    assert "identify the incorrect step" not in without[Part.STEP].prompt
    assert without[Part.EXPLANATION].completion == f"Step 2.\nCorrect Solution:\n{{\n...\n{SOLUTION}"
    assert "explain" not in without[Part.EXPLANATION].prompt
    assert without[Part.SOLUTION].completion == "Step 2.\nExplanation: 12 - 5 is 7."
    assert "correct solution" not in without[Part.SOLUTION].prompt
    whole = examples.correction(row)
    assert len({made.id for made in (whole, *without.values())}) == 4


def test_extracted_chain_of_thought_keeps_what_was_right() -> None:
    made = examples.extracted(rows.correction())
    assert made.completion == "\n".join([rows.STEPS[0], *rows.CORRECTED])
    assert (made.kind, made.source) == ("cot", "reference")
    assert made.prompt == examples.cot(rows.problem(), "", "gold").prompt


def test_a_correction_must_name_a_step_of_the_attempt() -> None:
    steps = [1, 3, 0, 4, None]
    assert [examples.is_complete(rows.correction(step=step)) for step in steps] == [True, True, False, False, False]
    assert not examples.is_complete(rows.correction(steps=()))


CASE = "Question: Where is money kept?\nCandidate Answers: bank, sand.\nOriginal Answer:\n{\nExplanations:\n"
CASE += "Sand - It is safe.\nThe answer is sand.\n}\n"
ANSWER = "{\nExplanations:\nSand - Nobody looks there.\nReasons and Final Answer:\nThe answer is bank.\n}"


def test_a_question_with_choices_asks_for_no_step(data_dir: Path) -> None:
    made = examples.correction(rows.commonsense())
    authors = (data_dir / "lema" / "prompt_correction_csqa.txt").read_text().partition("\n")[0]
    assert made.prompt == f"{authors}\n\n{CASE}Mistakes:"
    assert made.completion == f"Sand is not safe.\nCorrected Answer:\n{ANSWER}"
    unstated = examples.correction(rows.commonsense(steps=rows.commonsense().steps[:-1]))
    assert unstated.completion == made.completion
    assert not examples.is_complete(rows.commonsense(steps=()))
    assert not examples.is_complete(rows.commonsense(step=1))


def test_other_arms_of_a_question_with_choices() -> None:
    row = rows.commonsense()
    unexplained, unsolved = (examples.correction(row, part) for part in (Part.EXPLANATION, Part.SOLUTION))
    assert unexplained.prompt.endswith(f"{CASE}Corrected Answer:")
    assert "explain the" not in unexplained.prompt
    assert unexplained.completion == ANSWER
    assert unsolved.prompt.endswith(f"{CASE}Mistakes:")
    assert "correct these" not in unsolved.prompt
    assert unsolved.completion == row.explanation
    assert examples.extracted(row).completion == ANSWER.removeprefix("{\n").removesuffix("\n}")


def test_equal_texts_have_equal_ids() -> None:
    ids = {examples.correction(rows.correction(teacher=teacher)).id for teacher in ("one", "two")}
    assert len(ids) == 1


# What chat models end in, `{}` being the answer; of the first ones the last sentence says it otherwise, and no more.
OTHERWISE = (
    "#### {}",
    "Answer: {}",
    "**Answer:** {}",
    "**The answer is {}.**",
    "**Final Answer:** $\\boxed{{{}}}$",
    "### Final answer: {}",
    "So the answer is {}",
    "Therefore, the final answer is: \\(\\boxed{{{}}}\\).",
    "The answer is {}",
    "The final answer is ${}",
    "> Answer = {}",
    "The answer is {}.\n\nI hope this helps!",
    "The answer is {}. Let me know if you have any questions.",
)
BESIDES = (
    "So she sold \\boxed{{{}}} clips.",
    "$$\\boxed{{{}}}$$",
    "\\[\n\\boxed{{{}}}\n\\]",
    "The answer is {}, because 3 + 4 are so many.",
    "Answer: {}. We checked it twice.",
    "**Final Answer**\n\n\\boxed{{{}}}",
)


@given(
    end=st.sampled_from(OTHERWISE + BESIDES),
    before=st.sampled_from(["", "3 + 4 = 7.", "### Step 1\n3 + 4 are some.\n", "First,\n\n\\[ 3 + 4 \\]\n"]),
    number=st.integers(0, 10_000),
    inline=st.booleans(),
)
def test_a_right_text_ends_in_its_answer_said_once_more_at_most(
    end: str, before: str, number: int, inline: bool
) -> None:
    of = rows.problem(gold=str(number))
    text = before + (" " if inline else "\n") + end.format(number)
    answer, verdict = tasks.grade(of, text, truncated=False)
    if verdict is not Verdict.RIGHT:  # such as a heading in the middle of a line
        return
    made = examples.closed(of, text, str(answer))
    assert examples.FINAL_SENTENCE.search(made)
    assert tasks.grade(of, made, truncated=False) == (str(number), Verdict.RIGHT)
    assert examples.closed(of, made, str(answer)) == made
    if not inline:
        stays = 0 if end in OTHERWISE else len(re.findall("answer", end, re.IGNORECASE))
        added = 0 if end in BESIDES and examples.FINAL_SENTENCE.search(end.format(number)) else 1
        assert len(re.findall("answer|####", made, re.IGNORECASE)) == stays + added
        assert made.startswith(before.strip())


@pytest.mark.parametrize("end", OTHERWISE + BESIDES)
def test_no_end_of_a_chat_model_is_one_that_the_test_above_skips(end: str) -> None:
    assert tasks.grade(rows.problem(), f"3 + 4\n{end.format(7)}", truncated=False)[1] is Verdict.RIGHT


@pytest.mark.parametrize("end", ["The answer is correct.", "The answer is reasonable."])
def test_a_remark_on_the_answer_is_not_the_final_sentence(end: str) -> None:
    made = examples.closed(rows.problem(), f"3 + 4 = $\\boxed{{7}}$.\n{end}", "7")
    assert made.endswith(f"{end}\nThe answer is 7.")


def test_what_follows_the_same_words_ends_in_the_same_words() -> None:
    boxed = "12 - 5\n\\boxed{7}"
    ends = {
        curate.normal(examples.closed(rows.problem(), f"{boxed}{end}", "7")) for end in ("", "\nThe answer is 7.", "  ")
    }
    assert len(ends) == 1


@pytest.mark.parametrize("end", OTHERWISE)
def test_a_correction_that_states_its_answer_otherwise_does_not_state_it_twice(end: str) -> None:
    for steps in ((rows.CORRECTED[0], end.format(7)), (f"{rows.CORRECTED[0]} {end.format(7)}",)):
        made = examples.corrected_steps(rows.correction(steps=steps))
        assert " ".join(made) == " ".join(rows.CORRECTED), (steps, made)


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        ("The answer is 7. The original one had 8, which added 1; the correct answer is 7.", "The answer is 7."),
        ("The answer is 7. Check: 7 + 5 = 12.", "The answer is 7."),
        ("So the answer is not 8. The answer is 7.", "So the answer is not 8. The answer is 7."),
        ("The answer is 8. Wait, no: The answer is 7.", "The answer is 8. Wait, no: The answer is 7."),
    ],
)
def test_what_is_said_behind_the_answer_is_no_step(last: str, kept: str) -> None:
    made = examples.corrected_steps(rows.correction(steps=(rows.CORRECTED[0], last)))
    assert made == [rows.CORRECTED[0], kept]


def test_a_step_of_several_lines_stays_one() -> None:
    shown = "Now\n\\[ 12 - 5 = 7 \\]"
    assert examples.corrected_steps(rows.correction(steps=(shown,))) == [shown, rows.CORRECTED[1]]
    assert examples.corrected_steps(rows.correction(steps=(f"{shown}\n#### 7",))) == [shown, rows.CORRECTED[1]]


def test_an_attempt_that_goes_on_with_another_question_is_learnt_without_it() -> None:
    runs_on = rows.attempt(text=f"{rows.RIGHT}\n\nQuestion: Bo has 2 pears.\nAnswer: 2", verdict="right", answer="7")
    alone = rows.attempt(text=rows.RIGHT, verdict="right", answer="7")
    assert examples.solution(runs_on) == examples.solution(alone)
    rejected = rows.correction(rows.commonsense().attempt, step=None)
    text = f"{rejected.attempt.text}\n\nQuestion: Where is sand?\nAnswer: At the sea."
    longer = rejected.model_copy(update={"attempt": rejected.attempt.model_copy(update={"text": text})})
    assert examples.correction(longer).prompt == examples.correction(rejected).prompt
