"""The reference teacher: finds planted mistakes, passes every keep rule, and agrees with human labels."""

import hashlib
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.errors import UserError
from lema_jax.records import Attempt, Problem, Verdict
from lema_jax.tasks import arithmetic, expressions, gsm8k
from lema_jax.teacher import keep, reference
from lema_jax.teacher.parse import parse
from tests.data import rows


def attempt(problem: Problem, text: str) -> Attempt:
    return Attempt(
        id="a",
        problem=problem,
        student="s",
        sampling={},
        prompt="",
        text=text,
        answer=None,
        verdict=Verdict.WRONG,
        prompt_tokens=0,
        completion_tokens=0,
    )


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return arithmetic.load("dev")[:320]  # each of the 32 templates ten times


VERA = Problem(
    id="p",
    task="arithmetic",
    split="dev",
    question="Vera has 4 boxes with 8 roses in each. Vera gives away 13 roses. How many roses are left?",
    gold="19",
    rationale="Vera has 4 * 8 = <<4*8=32>>32 roses.\nThere are 32 - 13 = <<32-13=19>>19 roses left.",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Vera has 4 * 8 = 34 roses.\nThere are 34 - 13 = 21 roses left.\nThe answer is 21.",
            "Step 1.\nExplanation: The arithmetic is wrong: 4 * 8 is 32, not 34.\nCorrect Solution:\n{\n"
            "Step 1: Vera has 4 * 8 = 32 roses.\nStep 2: There are 32 - 13 = 19 roses left.\n"
            "Step 3: The answer is 19.\n}",
        ),
        (
            "Vera has 4 + 8 = 12 roses.\nThere are 13 - 12 = 1 roses left.\nThe answer is 1.",
            "Step 1.\nExplanation: 4 and 8 should be multiplied, not added: 4 * 8 = 32.\nCorrect Solution:\n{\n"
            "Step 1: Vera has 4 * 8 = 32 roses.\nStep 2: There are 32 - 13 = 19 roses left.\n"
            "Step 3: The answer is 19.\n}",
        ),
        (
            "Vera has 4 * 8 = 32 roses.\nThere are 32 - 8 = 24 roses left.\nThe answer is 24.",
            "Step 2.\nExplanation: Computing 32 - 8 = 24 does not help. What is needed here is 32 - 13 = 19.\n"
            "Correct Solution:\n{\n...\nStep 2: There are 32 - 13 = 19 roses left.\nStep 3: The answer is 19.\n}",
        ),
        (
            "Vera has 4 * 8 = 32 roses.\nThe answer is 32.",
            "Step 2.\nExplanation: What was computed before is right, but it is not yet what the question asks for."
            " What is needed here is 32 - 13 = 19.\n"
            "Correct Solution:\n{\n...\nStep 2: There are 32 - 13 = 19 roses left.\nStep 3: The answer is 19.\n}",
        ),
        (
            "Vera has 4 * 8 = 32 roses. There are 32 - 13 = 19 roses left. The answer is 91.",
            "Step 3.\nExplanation: All that is needed was computed before: the answer is 19.\n"
            "Correct Solution:\n{\n...\nStep 3: The answer is 19.\n}",
        ),
    ],
)
def test_the_reply_in_full(text, expected):
    assert reference.reply(attempt(VERA, text)) == expected


def test_another_way_to_a_needed_value_is_no_mistake():
    steps = ["Half of the boxes have 2 * 8 = 16 roses.", "All have 16 * 2 = 32 roses.", "So 32 + 13 = 45.", "#### 45"]
    assert reference.locate(VERA, steps).step == 3


def plant(problem: Problem, rng: random.Random) -> tuple[list[str], int]:
    """The gold path with one result changed and what depends on it recomputed, and the step of the change."""
    lines = [re.sub(r"<<.*?>>", "", line) for line in problem.rationale.splitlines()]
    wrong = rng.randrange(len(lines))
    changed: dict[str, str] = {}
    for i in range(wrong, len(lines)):
        head, expression, result, tail = re.fullmatch(r"(.*?)(\d[\d +*/-]*) = (\d+)(.*)", lines[i]).groups()
        told = " ".join(changed.get(token, token) for token in expression.split())
        value = int(result) + 7 + i if i == wrong else round(expressions.exact(told))
        changed[result] = str(value)
        lines[i] = f"{head}{told} = {value}{tail}"
    return [*lines, f"The answer is {value}."], wrong + 1


@pytest.mark.slow
def test_a_planted_slip_is_found_and_the_correction_passes_every_keep_rule(problems):
    rng = random.Random(0)
    for problem in problems:
        steps, wrong = plant(problem, rng)
        if steps[-1] == f"The answer is {problem.gold}.":  # the slip was cut off by a division
            continue
        tried = attempt(problem, "\n".join(steps))
        assert reference.locate(problem, steps).step == wrong
        parts = keep.align(tried, parse(reference.reply(tried)))
        assert (parts.flaw, keep.first_broken(tried, parts)) == ("", "")
        assert (parts.named, parts.first) == ((wrong,), wrong)
        # The steps kept and the corrected ones are the gold solution again.
        corrected = [*steps[: wrong - 1], *parts.steps]
        assert "\n".join(corrected) == arithmetic.completion(problem)


@pytest.mark.slow
def test_every_wrong_answer_of_another_problem_is_corrected_to_a_passing_reply(problems):
    for problem, other in zip(problems, problems[32:]):  # the same template, other numbers
        if problem.gold == other.gold:
            continue
        tried = attempt(problem, arithmetic.completion(other))
        parts = keep.align(tried, parse(reference.reply(tried)))
        assert (parts.flaw, keep.first_broken(tried, parts)) == ("", "")


def test_without_a_rationale_in_plain_numbers_there_is_no_correction():
    bare = VERA.model_copy(update={"rationale": ""})
    with pytest.raises(UserError, match="problem p has no rationale"):
        reference.reply(attempt(bare, "The answer is 3."))
    latex = VERA.model_copy(update={"rationale": "We have $4 \\cdot 8 = \\boxed{32}$."})
    with pytest.raises(UserError, match="rationale of problem p is LaTeX"):
        reference.reply(attempt(latex, "The answer is 3."))


@pytest.mark.long
def test_agreement_with_teachers_labels_on_stepverify(data_dir, capsys):
    """The rule was tuned on one half of the problems (by a hash of their ids) and is asserted on the other."""
    train = {" ".join(problem.question.split()): problem for problem in gsm8k.load("train", data_dir)}
    rows = json.loads((data_dir / "stepverify" / "dataset.json").read_text())
    matched = [(row, train[key]) for row in rows if (key := " ".join(row["problem"].split())) in train]
    assert len(matched) == 797
    rules = {
        "reference": lambda row, problem: reference.locate(problem, row["student_incorrect_solution"]).step - 1,
        "always step 1": lambda row, problem: 0,
        "always step 2": lambda row, problem: 1,
        "the middle step": lambda row, problem: (len(row["student_incorrect_solution"]) - 1) // 2,
        "always the last": lambda row, problem: len(row["student_incorrect_solution"]) - 1,
    }
    halves = {"tuned on": 0, "held out": 1}
    exact, near = {}, {}
    for half, parity in halves.items():
        part = [pair for pair in matched if int(hashlib.sha256(pair[1].id.encode()).hexdigest(), 16) % 2 == parity]
        for name, rule in rules.items():
            away = [abs(rule(row, problem) - row["incorrect_index"]) for row, problem in part]
            exact[half, name] = sum(distance == 0 for distance in away) / len(away)
            near[half, name] = sum(distance <= 1 for distance in away) / len(away)
            with capsys.disabled():
                figures = f"exact {exact[half, name]:.1%}, within one {near[half, name]:.1%}"
                print(f"\nstepverify, {half} ({len(part)}), {name}: {figures}", end="")
    for name in ("always step 1", "always the last"):
        assert exact["held out", "reference"] > exact["held out", name] + 0.15
        assert near["held out", "reference"] > near["held out", name] + 0.25
    for name in ("always step 2", "the middle step"):  # which are often a step away
        assert exact["held out", "reference"] > exact["held out", name] + 0.12
        assert near["held out", "reference"] > near["held out", name]


@pytest.mark.slow
def test_a_right_path_rarely_shows_a_false_step(data_dir):
    """On right answers of real models a rule that names steps should find nothing but the end."""
    test = {problem.question: problem for problem in gsm8k.load("test", data_dir)}
    flagged = total = 0
    with open(data_dir / "gsm8k" / "example_model_solutions_6b.jsonl") as file:
        for row in map(json.loads, file):
            for model in ("6b_finetuning", "6b_verification"):
                if row[model]["is_correct"]:
                    steps = row[model]["solution"].splitlines()
                    found = reference.locate(test[row["question"]], steps)
                    total += 1
                    flagged += not found.explanation.startswith(("All that is needed", "What was computed before"))
    assert total == 801
    assert flagged / total < 0.1


EQUATION = re.compile(
    r"(?P<left>-?[(\d.][\d.^+*/() -]*) (?P<sign>=|≈|is(?! wrong)) (?:about )?(?P<right>-?[\d./]+\d|-?\d)"
)


def statements(explanation: str) -> list[tuple[str, str, str]]:
    """What an explanation states as arithmetic: `3 * 4 = 12`, `8 / 3 ≈ 2.67`, `3 * 4 is 12, not 13`."""
    return [(found["left"], found["sign"], found["right"]) for found in EQUATION.finditer(explanation)]


def is_true(left: str, sign: str, right: str) -> bool:
    value, told = expressions.exact(left.replace("^", "**")), expressions.exact(right)
    return value == told or (sign != "=" and abs(value - told) <= abs(value) / 20)


operands = st.integers(1, 60).map(str) | st.sampled_from(["1/2", "3/4", "2.5", "0.25", "20%", "1,200", "2 1/2"])
latex = st.sampled_from([r"\frac{1}{2}", r"\frac{9}{4}", r"\dfrac{3}{8}", "12", r"3^2", r"2\frac{1}{2}", r"(4 + 5)"])
sums = st.tuples(operands, st.sampled_from([" + ", " - ", " * ", " x ", " / ", " times "]), operands)
formulas = st.tuples(latex, st.sampled_from([r" \times ", r" \cdot ", r" \div ", " + ", "-"]), latex)
results = st.integers(-3, 200).map(str) | st.sampled_from(["2.67", "0.5", "50%", r"\frac{7}{3}"])
written = st.tuples(
    sums.map("".join) | formulas.map("".join), results, st.sampled_from(["He has {} = {} left.", r"So \({} = {}\)."])
).map(lambda parts: parts[2].format(parts[0], parts[1]))


@pytest.mark.slow
@settings(max_examples=150)
@given(st.lists(written, min_size=1, max_size=4), st.lists(written, min_size=1, max_size=3))
def test_every_equation_of_an_explanation_is_true(steps, rationale):
    """Whatever the attempt claims, and whatever the gold rationale does."""
    problem = VERA.model_copy(
        update={"rationale": "\n".join(line for line in rationale if "\\" not in line) or "1 + 1"}
    )
    explanation = reference.locate(problem, steps).explanation
    if explanation.startswith("The arithmetic is wrong: "):
        assert statements(explanation)
    for stated in statements(explanation):
        assert is_true(*stated), explanation


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (r"Half of them: \(\frac{1}{2} \times 16 = 9\).", "1 / 2 * 16 is 8, not 9."),
        ("Each gets 8 / 3 = 2.8.", "8 / 3 is about 2.67, not 2.8."),
        ("There are 2^3 = 9.", "2 ^ 3 is 8, not 9."),
    ],
)
def test_false_arithmetic_is_told_as_it_is(step, said):
    assert reference.locate(VERA, [step, "The answer is 3."]).explanation == f"The arithmetic is wrong: {said}"


@pytest.mark.parametrize(
    "step",
    [
        r"\(\frac{1}{2} \times 16 = 8\)",
        r"\[ 2\frac{1}{2} \div \dfrac{1}{2} = 5 \]",
        r"$$\frac{3 + 5}{2} \cdot 4 = \boxed{16}$$",
        "½ of 16 = 8 and 2½ × 2 = 5",
    ],
)
def test_no_true_arithmetic_is_called_false(step):
    assert "is wrong" not in reference.locate(VERA, [step, "The answer is 3."]).explanation


def test_of_a_question_with_choices_the_whole_answer_is_corrected():
    problem = rows.problem(
        1, question="Who has more?", gold="Bo", choices=("Al", "Bo"), rationale="Al has 3 pens.\nBo has 4 pens."
    )
    attempt = rows.attempt(problem, text="Al has 3 pens.\nBo has 2 pens.\nThe answer is Al.", answer="Al")
    row = keep.correction("c", attempt, reference.TEACHER, reference.reply(attempt))
    assert (row.rejected, row.step, row.answer) == ("", None, "Bo")
    assert row.steps == ("Al has 3 pens.", "Bo has 4 pens.", "The answer is Bo.")
    assert row.explanation.startswith("The mistake is in step 1. ")
