"""Replies as models write them: whatever the dress, the step, the steps and the answer come out exactly."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.records import Attempt, Correction, Problem, Verdict
from lema_jax.teacher import keep

WRONG = "Step 1: Ann has 9 pens.\nStep 2: 9 + 4 = 13 pens.\nStep 3: 13 * 2 = 26 dollars.\nStep 4: The answer is 26."
STEPS = ("9 - 4 = 5 pens.", "5 * 2 = 10 dollars.", "The answer is 10.")
WHY = "It adds where it should take away."
CASES = [json.loads(line) for line in (Path(__file__).parent / "replies.jsonl").read_text().splitlines()]


def attempt() -> Attempt:
    problem = Problem(id="gsm8k/train/0", task="gsm8k", split="train", question="How many dollars?", gold="10")
    return Attempt(
        id="a", problem=problem, student="s", sampling={}, prompt="p", text=WRONG, answer="26",
        verdict=Verdict.WRONG, prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


def read(reply: str, usage: dict[str, object] | None = None) -> Correction:
    return keep.correction("c", attempt(), "t", reply, usage=usage)


def summary(row: Correction) -> tuple[int | None, tuple[str, ...], str | None, str]:
    return row.step, row.steps, row.answer, row.rejected


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_each_case(case: dict[str, object]) -> None:
    row = read(str(case["reply"]))
    assert summary(row) == (2, tuple(case.get("steps", STEPS)), "10", "")
    assert row.explanation == WHY


NAMINGS = [
    "Incorrect Step: Step 2",
    "Incorrect Step: 2",
    "**Incorrect Step:** Step 2",
    "### Incorrect Step\nStep 2",
    "The incorrect step is Step 2.",
    "The first incorrect step is step (2).",
    "Incorrect Step: 2nd step",
    "Incorrect Step: Step two",
    "Incorrect Step: Step #2",
    "Incorrect Step: Step II",
    "Step 1 is correct, but Step 2 is wrong.",
    "Step 1: Correct.\nStep 2: Incorrect.\n\nIncorrect Step: Steps 2 and 3",
    "Wrong step: \\textbf{Step 2}",
]
HEADINGS = [
    "Correct Solution:",
    "**Correct Solution:**",
    "### Corrected Solution",
    "Corrected:",
    "Correction:",
    "Revised solution:",
    "Fixed solution:",
    "Here is the corrected step:",
    "Here is the corrected solution:",
    "The corrected solution is as follows:",
    "",
]
LABELS = [
    "Step {}: {}",
    "**Step {}:** {}",
    "**Step {}**: {}",
    "**Step {}**\n{}",
    "### Step {}\n{}",
    "### Step {}: {}",
    "Step {} — {}",
    "Step {} - {}",
    "Step {}. {}",
    "Step {} (corrected): {}",
    "Correct Step {}: {}",
    "\\textbf{{Step {}:}} {}",
    "Step {} → {}",
    "Step {} => {}",
    "[Step {}] {}",
    "- **Step {}:** {}",
    "| {} | {} |",
    "{}. {}",
]
WRAPPERS = ["{}", "{{\n{}\n}}", "```\n{}\n```", "{{\n...\n{}\n}}", "---\n{}\n---"]
THOUGHTS = ["", "<think>Step 3? The answer is 7.</think>\n", "Is it step 1? Or step 3: no.\n</think>\n\n"]


def solution(label: str, first: int) -> str:
    steps = ["Ann has 9 pens."] * (first == 1) + list(STEPS)
    return "\n".join(label.format(number, step) for number, step in enumerate(steps, start=first))


@pytest.mark.slow
@settings(max_examples=400)
@given(
    st.sampled_from(NAMINGS), st.sampled_from(HEADINGS), st.sampled_from(LABELS), st.sampled_from(WRAPPERS),
    st.sampled_from(THOUGHTS), st.sampled_from([1, 2]), st.booleans(),
)  # fmt: skip
def test_any_dress_gives_the_same_parts(naming, heading, label, wrapper, thought, first, answer_first) -> None:
    """A solution without a heading has labels that carry numbers of steps, or braces."""
    if not heading and not (label.startswith(("Step", "**Step {}:**", "Correct")) or wrapper.startswith("{{")):
        heading = "Correct Solution:"
    early = "Correct answer: 10\n" if answer_first and heading.endswith("olution:") else ""
    reply = f"{thought}{naming}\nExplanation: {WHY}\n{early}{heading}\n{wrapper.format(solution(label, first))}"
    row = read(reply)
    assert summary(row) == (2, STEPS, "10", ""), reply
    assert row.explanation == WHY, reply


KEYS = [
    ("incorrect_step", "explanation", "correct_solution"),
    ("incorrectStep", "explanation", "correctSolution"),
    ("Incorrect Step", "Explanation", "Correct Solution"),
    ("step", "reason", "corrected_steps"),
    ("wrong_step", "mistake", "solution"),
    ("first_incorrect_step", "why", "revisedSolution"),
    ("step_number", "error_description", "steps"),
]
NUMBERS = [2, "2", "Step 2", [2], [2, 3], "the second step", {"number": 2}]
TEXTS = [f"Step {number}: {step}" for number, step in enumerate(STEPS, start=2)]
SOLUTIONS = [
    TEXTS,
    list(STEPS),
    "\n".join(TEXTS),
    "{\n" + "\n".join(TEXTS) + "\n}",
    [{"step": number, "text": step} for number, step in enumerate(STEPS, start=2)],
    [{"label": f"Step {number}", "content": step} for number, step in enumerate(STEPS, start=2)],
    {f"Step {number}": step for number, step in enumerate(STEPS, start=2)},
    {"steps": TEXTS, "answer": 10},
    {"steps": TEXTS[:-1], "final_answer": "10"},
    ["Step 1: Ann has 9 pens.", *TEXTS],
]
JSON_WRAPPERS = ["{}", "```json\n{}\n```", "Here is my correction:\n```\n{}\n```\nI hope this helps!"]


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True])
def test_json_of_any_kind(nested: bool) -> None:
    for keys, number, steps, wrapper in itertools.product(KEYS, NUMBERS, SOLUTIONS, JSON_WRAPPERS):
        fields: dict[str, object] = dict(zip(keys, (number, WHY, steps), strict=True))
        reply = wrapper.format(json.dumps({"correction": fields} if nested else fields))
        row = read(reply)
        assert summary(row) == (2, STEPS, "10", ""), reply
        assert row.explanation == WHY, reply


def test_a_trailing_comma_is_no_json_and_no_error() -> None:
    assert read('{"incorrect_step": 2, "explanation": "x",}').rejected


@pytest.mark.parametrize(
    "left",
    [
        "**",
        "Step 2:",
        "— 9 - 4 = 5",
        "### Step 2",
        "Step 3 - x",
        "Correct Solution: 5",
        "} 5",
        "It is 5. Step 3: 5",
        "2. 5",
        "Step 2, 5",
        "Step 2 = 5",
        "step 2 add 5",
        "→ 5",
        "It is 5. Step 3 → 5",
    ],
)
def test_no_label_or_half_of_one_is_kept(left: str) -> None:
    """The rule looks at steps however they were read."""
    parts = keep.align(attempt(), keep.parse(CASES[0]["reply"]))
    changed = keep.dataclasses.replace(parts, steps=(f"{left} pens", *parts.steps[1:]))
    assert keep.first_broken(attempt(), parts) == ""
    assert keep.first_broken(attempt(), changed) == "label_left"


@pytest.mark.parametrize("said", ["Step 1 gives 9, so 9 - 4 = 5", "Step 1's 9 pens less 4 are 5"])
def test_a_sentence_about_a_step_is_kept(said: str) -> None:
    parts = keep.align(attempt(), keep.parse(CASES[0]["reply"]))
    told = keep.dataclasses.replace(parts, steps=(f"{said} pens", *parts.steps[1:]))
    assert keep.first_broken(attempt(), told) == ""


def test_a_cut_thought_is_no_reply() -> None:
    thought = "<think>Incorrect Step: Step 2\nExplanation: x\nCorrect Solution:\nStep 2: 9 - 4 = 5.\nThe answer is 10."
    row = read(thought)
    assert summary(row) == (None, (), None, "cut_off")


def test_a_reply_that_ended_by_itself_was_not_cut_off() -> None:
    reply = CASES[0]["reply"].partition("Step 3:")[0]
    assert read(reply).rejected == "cut_off"
    assert read(reply, {"finish": "stop"}).rejected == "no_answer"
