"""The parser takes real prose: whatever the shape, three parts or a flaw, never an exception."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.teacher import parse as parsing
from lema_jax.teacher.parse import Parts, parse

CANONICAL = """ Step 2.
Explanation: It adds where it should subtract.
Correct Solution:
{
...
Step 2: She keeps 9 - 4 = 5 pens.
Step 3: The answer is 5.
}"""
BARE = CANONICAL.replace("{\n", "").replace("\n}", "")
EXPECTED = Parts(
    named=(2,),
    explanation="It adds where it should subtract.",
    first=2,
    steps=("She keeps 9 - 4 = 5 pens.", "The answer is 5."),
)


def test_the_papers_form():
    assert parse(CANONICAL) == EXPECTED


@pytest.mark.parametrize(
    "reply",
    [
        "Incorrect Step: Step 2" + CANONICAL.removeprefix(" Step 2"),
        CANONICAL.replace("Step 2.\n", "Step 2:\n"),
        CANONICAL.replace("Step 2.\n", "2\n"),
        CANONICAL.replace("Step 2.\n", "**Incorrect Step:** 2\n"),
        CANONICAL.replace("...\n", ""),
        CANONICAL.replace("...\n", "Step 1: ...\n"),
        CANONICAL.replace("...\n", "Step 1: (same as before)\n"),
        BARE,
        CANONICAL.replace("{\n", "```\n{\n").replace("\n}", "\n}\n```"),
        CANONICAL.replace("\n}", ""),
        CANONICAL.replace("Explanation:", "**Explanation:**").replace("Correct Solution:", "### Corrected Solution"),
        CANONICAL.replace("Explanation:", "2. **Explanation**:").replace(
            "Correct Solution:", "3. **Correct Solution**:"
        ),
        CANONICAL.replace("Step 2: ", "**Step 2:** ").replace("Step 3: ", "**Step 3: ").replace("5.\n}", "5.**\n}"),
        CANONICAL.replace("Step 3: The", "The"),
        CANONICAL.replace("\nStep 3: The answer is 5.\n}", "\n}\nThe answer is 5."),
        CANONICAL.replace("9 - 4 = 5 pens", "\n9 - 4 = 5\npens"),
        CANONICAL + "\n\nI hope this helps!",
        BARE + "\n\nI hope this helps!",
        BARE + "\n\n**Question:** Another one?\nOriginal Solution:\nStep 1: The answer is 9.",
        CANONICAL + "\n\nQuestion: Another one?\nOriginal Solution:\n{\nStep 1: The answer is 9.\n}",
        "<think>Is it Step 1? No. Step 3?</think>\n" + CANONICAL,
        re.sub(r"\{\n\.\.\.\n(.*)\n(.*)\n\}", r"{ ... \1 \2 }", CANONICAL),
        "The incorrect step is Step 2.\n\nIt adds where it should subtract.\n\nThe corrected solution is as follows:\n"
        + CANONICAL.partition("Correct Solution:\n")[2],
        "Step 2. It adds where it should subtract.\n" + CANONICAL.partition("Correct Solution:\n")[2],
    ],
)
def test_the_same_parts_in_other_dress(reply):
    assert parse(reply) == EXPECTED


@pytest.mark.parametrize(
    ("naming", "named"),
    [
        ("Steps 2 and 3.", (2, 3)),
        ("Steps 2, 3, and 5", (2, 3, 5)),
        ("Step 2 and Step 4.", (2, 4)),
        ("Steps 2-4.", (2, 4)),
        ("Step #3", (3,)),
        ("Incorrect Steps: 4 & 5", (4, 5)),
        ("The first wrong step is step number 6.", (6,)),
    ],
)
def test_named_steps(naming, named):
    assert parse(CANONICAL.replace(" Step 2.\n", naming + "\n")).named == named


@pytest.mark.parametrize(
    ("reply", "flaw"),
    [
        ("", "empty"),
        (" \n```\n```\n", "empty"),
        ("<think>I never stopped thinking", "cut_off"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("As an AI language model I cannot assist with this request.", "refusal"),
        ("All the steps are correct." + CANONICAL.removeprefix(" Step 2."), "no_step"),
        ("Step 2.\nExplanation: It adds where it should subtract.", "no_solution"),
        ("Step 2.\nExplanation: It adds.\nCorrect Solution:\n{\n...\n}", "no_solution"),
        (CANONICAL[: CANONICAL.index("Step 3:")], "cut_off"),
    ],
)
def test_flaws(reply, flaw):
    assert parse(reply).flaw == flaw


def test_a_missing_explanation_is_no_flaw_of_the_shape():
    parts = parse(CANONICAL.replace("Explanation: It adds where it should subtract.\n", ""))
    assert (parts.explanation, parts.steps, parts.flaw) == ("", EXPECTED.steps, "")


def test_latex_braces_do_not_end_the_solution():
    steps = (r"The set \{1, 2\} has sum $\frac{1}{2} \cdot 6 = 3$ and \} is no end.", r"The answer is \frac{6}{2}.")
    reply = f"Step 1.\nExplanation: x\nCorrect Solution:\n{{\nStep 1: {steps[0]}\nStep 2: {steps[1]}\n}}"
    assert parse(reply).steps == steps
    unbalanced = reply.replace(r"\cdot 6", r"\cdot { 6")
    assert parse(unbalanced).steps == tuple(step.replace(r"\cdot 6", r"\cdot { 6") for step in steps)


def test_numbered_list_and_prose_carry_no_step_number():
    listed = "Step 2.\nExplanation: x\nCorrect Solution:\n1. Nine less four:\n   9 - 4 = 5.\n2. The answer is 5."
    assert (parse(listed).first, parse(listed).steps) == (None, ("Nine less four: 9 - 4 = 5.", "The answer is 5."))
    prose = "Step 2.\nExplanation: x\nCorrect Solution: She keeps 9 - 4 = 5 pens. The answer is 5."
    assert (parse(prose).first, parse(prose).steps) == (None, EXPECTED.steps)


def test_what_the_listed_steps_stand_on_is_kept_and_chatter_is_not():
    solution = "Let $x = 4$ be the pens.\n\n### Step 2: Five more\n4 + 5 = 9.\n### Final\nThe answer is 9."
    parts = parse(f"Step 2.\nExplanation: x\nCorrect Solution:\n{solution}")
    assert (parts.first, parts.steps[0]) == (2, "Let $x = 4$ be the pens. Five more 4 + 5 = 9. Final")
    for chatter in ("Here are the steps from step 2 on:", "...", "Of course!\n\n...", "Step 1: (same as before)"):
        parts = parse(f"Step 2.\nExplanation: x\nCorrect Solution:\n{chatter}\nStep 2: 4 + 5 = 9.\nThe answer is 9.")
        assert (parts.first, parts.steps) == (2, ("4 + 5 = 9.", "The answer is 9."))
    listed = "Let y be 3.\n1. Then 3 + 4 = 7.\n2. The answer is 7."
    assert parse(f"Step 1.\nExplanation: x\nCorrect Solution:\n{listed}").steps[0] == "Let y be 3. Then 3 + 4 = 7."


def test_commonsense_replies_name_no_step():
    block = "{\nExplanations:\nbank - It holds money.\nReasons and Final Answer:\nThe answer is bank.\n}"
    for cue in ("", "Mistakes: "):
        parts = parse(f"{cue}It dismisses the bank.\nCorrected Answer:\n{block}", asks_step=False)
        assert (parts.named, parts.explanation, parts.flaw) == ((), "It dismisses the bank.", "")
        assert parts.steps == tuple(block.splitlines()[1:-1])


@given(st.text() | st.text(alphabet="Step 123.:{}*\n-,\\`", max_size=300))
def test_any_text_gives_parts_or_a_flaw(text):
    for asks_step in (True, False):
        parts = parse(text, asks_step=asks_step)
        assert parts.flaw in ("", *parsing.FLAWS)
        assert parts.flaw or (parts.steps and bool(parts.named) == asks_step)
        assert all(step.strip() == step and step and "\n" not in step for step in parts.steps)


@given(st.integers(0, len(CANONICAL)))
def test_a_reply_cut_anywhere_is_never_taken_for_a_whole_one(end):
    parts = parse(CANONICAL[:end])
    stated = CANONICAL.index("answer is") + len("answer is")
    assert bool(parts.flaw) == (end < stated)


words = (
    st.tuples(st.sampled_from("abcdefgh"), st.text(alphabet="abcdefgh $^_\\+=0123456789")).map("".join).map(str.strip)
)


@given(st.integers(1, 30), words, st.lists(words, min_size=1, max_size=5), st.booleans(), st.booleans(), st.booleans())
def test_what_was_written_is_read_back(step, explanation, steps, bold, braces, dots):
    star = "**" if bold else ""
    steps = [*steps, "The answer is 4."]
    lines = [f"{star}Step {number}:{star} {text}" for number, text in enumerate(steps, start=step)]
    lines = ["..."] * dots + lines
    if braces:
        lines = ["{", *lines, "}"]
    reply = f"{star}Incorrect Step:{star} Step {step}.\n{star}Explanation:{star} {explanation}\n"
    reply += f"{star}Correct Solution:{star}\n" + "\n".join(lines)
    parts = parse(reply)
    assert parts == Parts((step,), " ".join(explanation.split()).strip("_ "), step, tuple(steps))


HOSTILE = [
    "*",
    "{",
    "Step ",
    "\n",
    "Step 1, ",
    "1, ",
    "correct solution ",
    "- ",
    "...",
    "\\",
    "the answer is ",
    " ",
    "a. ",
]


@pytest.mark.slow
@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("prefix", ["", "Step 1", "Step 1.\nCorrect Solution:\n{"])
def test_hostile_repetition_ends(unit, prefix):
    """Quadratic matching would take hours here; linear takes milliseconds."""
    assert parse(prefix + unit * 100_000 + "x").flaw in ("", *parsing.FLAWS)


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_the_authors_worked_examples(data_dir, name):
    text = (data_dir / "lema" / f"prompt_correction_{name}.txt").read_text()
    examples = text.split("Original Solution:")[1:]
    assert len(examples) == 4
    for example in examples:
        parts = parse(example.partition("Incorrect Step:")[2])
        assert not parts.flaw
        assert parts.explanation
        assert parts.first == parts.named[0]
        assert parts.steps[-1].startswith("The answer is")
