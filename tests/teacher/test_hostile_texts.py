"""Texts that no honest model writes are read in time that grows no faster than their length, by everything that reads.

A quadratic reader takes 16 times as long for four times the text; a linear one four times.
"""

import itertools
import time
from collections.abc import Callable, Iterator

import pytest

from lema_jax import tasks
from lema_jax.records import Attempt, Problem, Verdict
from lema_jax.tasks.claims import claims, numbers
from lema_jax.tasks.steps import split_steps
from lema_jax.teacher import critique, evolution, keep, reference
from lema_jax.teacher.parse import parse

GOLDS = {"arithmetic": "5", "asdiv": "5", "csqa": "bank", "gsm8k": "5", "math": "\\frac{1}{2}", "svamp": "5"}
END = "\nThe answer is 7."


def attempt(text: str, task: str = "gsm8k") -> Attempt:
    choices = ("bank", "mall", "park") if task == "csqa" else ()
    problem = Problem(
        id="p", task=task, split="train", question="How many?", gold=GOLDS[task], choices=choices,
        rationale="2 + 3 = <<2+3=5>>5 pens.",
    )  # fmt: skip
    return Attempt(
        id="a", problem=problem, student="s", sampling={}, prompt="p", text=text, answer=None, verdict=Verdict.WRONG,
        prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


def grader(task: str) -> Callable[[str], object]:
    problem = attempt("", task).problem
    return lambda text: (
        tasks.grade(problem, text, truncated=False),
        tasks.grade(problem, text, truncated=True),
        tasks.get(task).official_grader(text, problem),
    )


def as_solution(text: str) -> object:
    """The text as a step of a correction that is kept but for it."""
    reply = f"Incorrect Step: Step 1.\nExplanation: {text[:50]}\nCorrect Solution:\n{{\nStep 1: {text}\n}}"
    return keep.correction("c", attempt(text), "t", reply)


READERS: dict[str, Callable[[str], object]] = {
    **{f"grader of {task}": grader(task) for task in GOLDS},
    "steps": split_steps,
    "claims": lambda text: (claims(text), numbers(text)),
    "parse": lambda text: (parse(text), parse(text, asks_step=False)),
    "keep": as_solution,
    "reference": lambda text: reference.reply(attempt(text)),
    "critique": lambda text: critique.row("c", attempt(text), "t", f"{text}\nConclusion: wrong."),
    "evolution": evolution.read_question,
}
REPEATED = {
    "vulgar fractions": "½",
    "open boxes": "\\boxed{",
    "open fractions": "\\frac{",
    "open brackets": "(",
    "open formulas": "\\[",
    "open JSON": '{"steps":["',
    "open thoughts": "<think>",
    "nested text": "\\text{\\boxed{",
    "digits": "9",
    "chain of equals": "1=",
    "tower of powers": "2^",
    "long division": "1/",
    "long sum": "1+",
    "backslashes": "\\",
    "braces": "{}",
    "emphasis": "**a**",
    "asterisks": "*",
    "announcements": "Here is a critique of the new question",
    "fences": "```\n",
    "line breaks": "\n",
    "spaces": " ",
    "bullets": "- a\n",
    "labels": "Step 1: \n",
    "headings": "Correct Solution:\n{",
    "cues": "The answer is 5. ",
    "marks": "#### ",
    "questions": "\n\nQ: ",
    "sentences": "It is 2 + 3 = 5. ",
    "number words": "one hundred and ",
    "dollars": "$5$ and ",
    "table": "|a",
    "not ASCII": "日²√α",
    "NUL": "\0",
}
COUNTED = {  # no line twice
    "steps": "Step {0}: {0} + {0} = {1}\n",
    "false steps": "Step {0}: {0} + {0} = {0}\n",
    "steps in words": "Then {0} apples\n",
    "boxes": "\\boxed{{{0}}} ",
    "answers": "The answer is {0}.\n",
}


def of_length(length: int, parts: Iterator[str]) -> str:
    """The parts up to that length, and an end as of an attempt."""
    said: list[str] = []
    for part in parts:
        said.append(part)
        length -= len(part)
        if length <= 0:
            break
    return "".join(said) + END


TEXTS: dict[str, Callable[[int], str]] = {
    **{name: lambda length, unit=unit: of_length(length, itertools.repeat(unit)) for name, unit in REPEATED.items()},
    **{
        f"counted {name}": lambda length, line=line: of_length(
            length, (line.format(i, 2 * i) for i in itertools.count(11))
        )
        for name, line in COUNTED.items()
    },
}
_FLOOR = 0.15  # seconds that are nothing to grow from


def seconds(read: Callable[[str], object], text: str) -> float:
    """Of the processor."""
    start = time.process_time()
    read(text)
    return time.process_time() - start


def growth(read: Callable[[str], object], text: Callable[[int], str]) -> float:
    """How many times as long four times the text takes; 0 where even that is read at once.

    A busy machine only adds, and most to a short try: of each length the least of some tries counts.
    """
    long, short = text(50_000), text(12_500)
    if (first := seconds(read, long)) < _FLOOR:
        return 0.0
    return min(first, seconds(read, long)) / min(seconds(read, short) for _ in range(5))


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
def test_time_grows_with_the_length_alone(name):
    found = {reader: growth(read, TEXTS[name]) for reader, read in READERS.items()}
    assert {reader: times for reader, times in found.items() if times > 8} == {}


def test_a_quadratic_reader_is_found_out():
    def quadratic(text: str) -> None:
        for _ in range(len(text) // 8):
            text.count("ab")

    assert growth(quadratic, lambda length: "a" * length) > 8
