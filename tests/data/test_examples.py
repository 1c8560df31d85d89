"""The paper's formats, to the byte."""

from pathlib import Path

from lema_jax.data import examples
from lema_jax.data.examples import ARMS, Part
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


def test_every_arm_but_cot_makes_something_of_a_correction() -> None:
    row = rows.correction()
    made = [render(row).id for render in ARMS.values() if render is not None]
    assert ARMS["cot"] is None
    assert len(set(made)) == len(ARMS) - 1


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
