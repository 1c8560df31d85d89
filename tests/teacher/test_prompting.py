"""The worked examples are what they claim: right where they are corrected, wrong where they say so, and readable."""

import itertools
import re

import pytest

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.records import Attempt, Problem, Verdict
from lema_jax.tasks import expressions, prompts
from lema_jax.tasks.steps import split_steps
from lema_jax.teacher import budget, chat, keep, prompting
from lema_jax.teacher.parse import parse

QUESTION = re.compile(r"^Question: ", re.MULTILINE)
LATEX = ((r"\\[dt]?frac\{(\d+)\}\{(\d+)\}", r"(\1/\2)"), (r"\\cdot|x(?= ?[\d$])", "*"), (r"\\boxed\{(.*)\}", r"\1"))
NUMERIC = re.compile(r"[\d\s.+*/()^-]+\Z")


def problem(task="gsm8k", choices=(), question="How many?", gold="7") -> Problem:
    return Problem(id=f"{task}/train/0", task=task, split="train", question=question, gold=gold, choices=choices)


def attempt(of: Problem, text: str) -> Attempt:
    return Attempt(
        id="a", problem=of, student="s", sampling={}, prompt="p", text=text, answer=None,
        verdict=Verdict.WRONG, prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


def packaged(name: str) -> str:
    """The worked examples of the package's own prompt, without what stands after the case."""
    return prompting.packaged(name).partition(prompting.CASE)[0]


def examples(text: str) -> list[str]:
    return QUESTION.split(text)[1:]


def halves(example: str) -> tuple[str, str]:
    """The original solution, and the reply that corrects it."""
    original, _, reply = example.partition("Incorrect Step:")
    return original.partition("Original Solution:\n{\n")[2].strip().removesuffix("}").strip(), reply


def false_equations(text: str) -> list[str]:
    """The equations between numbers that do not hold: `3 + 4 = 8`, `\\frac{4}{2} = 3`, each link of `a = b = c`."""
    plain = text.replace("$", "").replace(",", "")
    for pattern, new in LATEX:
        plain = re.sub(pattern, new, plain)
    wrong = []
    for chain in re.findall(r"[\d\s.+*/()^x-]+(?:=[\d\s.+*/()^-]+)+", plain):
        sides = [side.strip(" .\n") for side in chain.split("=")]
        values = [expressions.exact(s.replace("^", "**")) for s in sides if NUMERIC.match(s)]
        wrong += [chain.strip() for a, b in itertools.pairwise(values) if None not in (a, b) and a != b]
    return wrong


@pytest.mark.parametrize("family", ["gsm8k", "math"])
class TestWorkedExamplesOfMathematics:
    def test_there_are_four_with_distinct_questions(self, family):
        questions = [example.partition("\n")[0] for example in examples(packaged(family))]
        assert len(set(questions)) == 4

    def test_each_correction_is_one_that_we_would_keep(self, family):
        for example in examples(packaged(family)):
            original, reply = halves(example)
            parts = parse(reply)
            assert not parts.flaw
            wrong = attempt(problem(gold=answer(parts.steps)), original)
            assert {name for name, passes in keep.RULES.items() if not passes(wrong, keep.align(wrong, parts))} <= (
                {"wrong_answer"} if family == "math" else set()  # whose grader is another
            )
            assert answer(split_steps(original)) != answer(parts.steps)

    def test_corrected_and_kept_steps_calculate_right(self, family):
        for example in examples(packaged(family)):
            original, reply = halves(example)
            parts = parse(reply)
            kept = split_steps(original)[: parts.named[0] - 1]
            assert false_equations("\n".join([*kept, *parts.steps])) == []

    def test_explanations_speak_of_their_own_question(self, family):
        """Each has words that only its own example has; in the authors' file for MATH the second has none."""
        split = [example.partition("Explanation:") for example in examples(packaged(family))]
        explanations = [words(after.partition("Correct Solution:")[0]) for _, _, after in split]
        cases = [words(before) for before, _, _ in split]
        for own, explanation in enumerate(explanations):
            elsewhere = set().union(*cases[:own], *cases[own + 1 :])
            assert explanation & (cases[own] - elsewhere)


def answer(steps) -> str:
    return steps[-1].removeprefix("The answer is ").removesuffix(".")


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def test_the_check_of_equations_finds_a_false_one():
    assert false_equations("He pays $3 + $4 = $7, then 2 * 7 = 15.") == ["2 * 7 = 15."]
    assert false_equations(r"so $\frac{15}{36} = \frac{3}{12}$") != []
    assert false_equations("$5 * 12 + 2 * 24 = 60 + 48 = 108 pages") == []


def test_the_commonsense_examples():
    for example in (found := examples(packaged("csqa"))):
        head, _, rest = example.partition("Original Answer:\n{\n")
        original, _, reply = rest.partition("}\nMistakes:")
        choices = head.partition("Candidate Answers: ")[2].strip().removesuffix(".").split(", ")
        parts = parse(reply, asks_step=False)
        assert (parts.flaw, bool(parts.explanation), len(set(choices))) == ("", True, 5)
        chosen = [
            text.strip().rpartition("The answer is ")[2].removesuffix(".") for text in (original, parts.steps[-1])
        ]
        assert chosen[0] != chosen[1]
        assert set(chosen) <= set(choices)
        for text in (original, "\n".join(parts.steps)):  # every candidate is explained, in order
            explained = re.findall(r"^(.+?) - ", text, re.MULTILINE)
            assert [name.casefold() for name in explained] == choices
    assert len(found) == 4


@pytest.mark.parametrize("family", ["gsm8k", "math", "csqa"])
def test_the_chain_of_thought_examples_are_right_by_our_own_graders(family):
    """They are the corrected solutions of the correction examples, as the task's own prompt and completion have it."""
    corrections = examples(packaged(family))
    choices = [re.findall(r"Candidate Answers: (.*)\.\n", text) for text in corrections]
    text = prompts.worked_examples(family)
    shots = examples(text)
    assert len({shot.partition("\n")[0] for shot in shots}) == len(shots) == len(corrections) == 4
    assert false_equations(text) == []
    for shot, correction, options in zip(shots, corrections, choices):
        question = shot.partition("\n")[0]
        gold = re.findall(r"The answer is (.+)\.", correction)[-1]
        asked = problem(family, tuple(options[0].split(", ")) if options else (), question, gold)
        head, cue, solution = shot.strip().partition("Answer: Let's think step by step.\n")
        assert tasks.grade(asked, solution, truncated=False) == (gold, Verdict.RIGHT)
        assert tasks.get(family).official_grader(solution, asked)
        assert solution.endswith(f"\nThe answer is {gold}.")
        mistaken = correction.partition("\n}\n")[0]
        assert tasks.grade(asked, mistaken, truncated=False)[1] is Verdict.WRONG
        assert prompts.few_shot(None, asked) == f"{text}\n\nQuestion: {head}{cue}"


def test_the_right_choice_stands_in_no_one_place():
    found = [
        (re.findall(r"Candidate Answers: (.*)\.\n", text)[0].split(", "), re.findall(r"The answer is (.+)\.", text)[-1])
        for text in examples(packaged("csqa"))
    ]
    assert len({choices.index(gold) for choices, gold in found}) == 4


@pytest.mark.parametrize(
    ("task", "gold", "choices", "family"),
    [
        ("asdiv", "7", (), "gsm8k"),
        ("jsonl:own.jsonl", "1,234.5", (), "gsm8k"),
        ("jsonl:own.jsonl", "x^2", (), "math"),
        ("math", "7", (), "math"),
        ("jsonl:own.jsonl", "a", ("a", "b"), "csqa"),
    ],
)
def test_the_family_is_that_of_the_answer(task, gold, choices, family):
    assert prompts.family(problem(task, choices, gold=gold)) == family


@pytest.mark.parametrize("family", ["gsm8k", "math"])
def test_the_packages_prompt_asks_for_its_form_after_the_case(family):
    case = attempt(problem(family, question="How many pens?"), "Step 1: 3 + 4 = 8.\nThe answer is 8.")
    asked = prompting.messages(prompting.load(case.problem), case)[-1]["content"]
    after = prompting.packaged(family).partition("{case}")[2]
    assert asked == (
        "Question: How many pens?\nOriginal Solution:\n{\nStep 1: 3 + 4 = 8.\nStep 2: The answer is 8.\n}" + after
    )
    for heading in ("Incorrect Step:", "Explanation:", "Correct Solution:", "The answer is"):
        assert heading in after


@pytest.mark.parametrize(("family", "choices"), [("gsm8k", ()), ("math", ()), ("csqa", ("bank", "mall"))])
def test_the_packages_prompt_is_a_conversation_of_worked_examples(family, choices):
    """Whose text is that of the file, in its order, but for the white space between turns."""
    case = attempt(problem(family, choices), "3 + 4 = 8.\nThe answer is mall.")
    messages = prompting.messages(prompting.load(case.problem), case)
    assert [message["role"] for message in messages] == ["user", "assistant"] * 4 + ["user"]
    said = [message["content"] for message in messages]
    assert "".join("".join(said[:-1]).split()) == "".join(packaged(family).split())
    for asked, replied in zip(said[::2], said[1::2]):
        original = asked.rpartition("{\n")[2].removesuffix("}")
        parts = parse(replied, asks_step=not choices)
        assert not parts.flaw
        assert asked.endswith("\n}")
        assert "\n".join(parts.steps) not in original
    last = said[-1]
    assert not any(example[0].partition("\n")[0] in last for example in prompting.load(case.problem).examples)


def test_a_commonsense_prompt():
    case = attempt(problem("csqa", ("bank", "mall"), "Where?"), "Explanations:\nThe answer is mall.")
    shown, _, asked = prompting.messages(prompting.load(case.problem), case)[-1]["content"].rpartition("\n\n")
    assert shown == (
        "Question: Where?\nCandidate Answers: bank, mall.\nOriginal Answer:\n{\nExplanations:\nThe answer is mall.\n}"
    )
    for heading in ("Mistakes:", "Corrected Answer:", "The answer is"):
        assert heading in asked


@pytest.mark.parametrize(
    ("name", "task", "choices", "case"),
    [
        ("gsm8k", "gsm8k", (), "Original Solution:\n{\nStep 1: 3 + 4 = 8.\n}\nIncorrect Step:"),
        ("math", "math", (), "Original Solution:\n{\nStep 1: 3 + 4 = 8.\n}\nIncorrect Step:"),
        ("csqa", "csqa", "ab", "Candidate Answers: a, b.\nOriginal Answer:\n{\n3 + 4 = 8.\n}\nMistakes:"),
    ],
)
def test_the_authors_prompts_are_asked_byte_for_byte(data_dir, name, task, choices, case):
    file = data_dir / "lema" / f"prompt_correction_{name}.txt"
    wrong = attempt(problem(task, tuple(choices)), "3 + 4 = 8.")
    asked = prompting.messages(prompting.load(wrong.problem, file), wrong)
    assert asked == [{"role": "user", "content": f"{file.read_text().strip()}\n\nQuestion: How many?\n{case}"}]


def one_message(prompt, of: Attempt) -> str:
    (message,) = prompting.messages(prompt, of)
    assert message["role"] == "user"
    return message["content"]


def test_a_file_of_ones_own_has_the_case_where_it_says(tmp_path):
    wrong = attempt(problem(question="Is {case} here?\n{case}\n"), "3 + 4 = 8.")
    (tmp_path / "own.txt").write_text("Name the step.\n\n{case}\nIncorrect Step:\n")
    prompt = prompting.load(wrong.problem, tmp_path / "own.txt")
    assert one_message(prompt, wrong) == (
        "Name the step.\n\nQuestion: Is {case} here?\n{case}\n\nOriginal Solution:\n{\nStep 1: 3 + 4 = 8.\n}\n\n"
        "Incorrect Step:"
    )
    (tmp_path / "first.txt").write_text("{case}\nReply with Incorrect Step:")
    asked = one_message(prompting.load(wrong.problem, tmp_path / "first.txt"), wrong)
    assert asked.startswith("Question: Is")
    assert asked.endswith("}\n\nReply with Incorrect Step:")


def test_another_text_is_another_prompt(tmp_path):
    """Rows say which prompt they were asked by, and a changed file is not taken for the one before."""
    own = tmp_path / "own.txt"
    own.write_text("Incorrect Step: 2")
    first = prompting.load(problem(), own).id
    assert first.startswith("own.txt@")
    assert prompting.load(problem(), own).id == first
    own.write_text("Incorrect Step: 3")
    assert prompting.load(problem(), own).id != first
    assert len({prompting.load(problem(task, choices)).id for task, choices in (("gsm8k", ()), ("math", ()))}) == 2


def test_the_same_text_as_a_file_is_another_prompt(tmp_path):
    """Asked as one message it gets other replies than in turns."""
    own = tmp_path / "gsm8k"
    own.write_text(prompting.packaged("gsm8k"))
    as_file, ours = prompting.load(problem(), own), prompting.load(problem())
    assert as_file.id.startswith("gsm8k@")
    assert as_file.id != ours.id
    wrong = attempt(problem(), "3 + 4 = 8.")
    asked = [chat.request(prompting.messages(p, wrong), model="m", max_tokens=5) for p in (as_file, ours)]
    assert asked[0].id != asked[1].id
    assert budget.worst(asked[1].body).prompt >= sum(len(m["content"]) for m in prompting.messages(ours, wrong))


def test_corrections_that_another_prompt_asked_for_are_told(tmp_path):
    ours = prompting.load(problem())
    wrong = attempt(problem(), "3 + 4 = 8.")
    rows = [
        keep.correction(f"c{n}", wrong, "t", "Incorrect Step: 1.", id) for n, id in enumerate(["", ours.id, "gsm8k@0"])
    ]
    assert prompting.asked_otherwise(rows[:2], [ours]) == ""
    said = prompting.asked_otherwise(rows, [ours])
    assert said.startswith("1 corrections were asked for by another prompt (gsm8k@0) than this run's (")
    assert ours.id in said


def test_a_file_that_cannot_serve(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        prompting.load(problem(), tmp_path / "none.txt")
    (tmp_path / "other.txt").write_text("Mistakes: none")
    with pytest.raises(UserError, match="never says 'Incorrect Step:'"):
        prompting.load(problem(), tmp_path / "other.txt")
    (tmp_path / "twice.txt").write_text("Incorrect Step:\n{case}\n{case}\nReply.")
    with pytest.raises(UserError, match="has 2 lines"):
        prompting.load(problem(), tmp_path / "twice.txt")
    (tmp_path / "bytes.txt").write_bytes(b"Incorrect Step: \xff")
    with pytest.raises(UserError, match=r"--prompt_file: .*bytes\.txt:1: not UTF-8"):
        prompting.load(problem(), tmp_path / "bytes.txt")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_a_file_with_other_line_ends_asks_the_same(tmp_path, end):
    text = "Name the step.\n\n{case}\n\nIncorrect Step:\n"
    own = tmp_path / "own.txt"
    prompts = []
    for written in (text, text.replace("\n", end)):
        own.write_bytes(written.encode())
        prompts.append(prompting.load(problem(), own))
    assert prompts[0] == prompts[1]


def test_an_evolution_prompt_shows_the_seed_alone():
    assert prompting.evolution(problem(question="How many pens?")).endswith(
        "\n\nQuestion: How many pens?\nNew Question:"
    )
