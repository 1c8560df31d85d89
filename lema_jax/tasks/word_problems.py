"""What tasks whose answer is one number share: the paper's prompt, the gold chain of thought, extraction, equality."""

import re

from lema_jax.records import Problem
from lema_jax.tasks import answers

_MARK = re.compile(r"<<[^<>]*>>")


def prompt(problem: Problem) -> str:
    """The paper's zero-shot prompt for mathematics, byte for byte (the authors' released test files)."""
    return (
        f"Please solve the following math problem.\nQuestion: {problem.question}\nAnswer: Let's think step by step.\n"
    )


def completion(problem: Problem) -> str:
    """The gold rationale, one step a line without `<<a=b>>` marks, and `The answer is {gold}.` as the last line."""
    return f"{_MARK.sub('', problem.rationale).strip()}\nThe answer is {problem.gold}."


def extract(text: str, problem: Problem) -> str | None:
    """The number that `text` states as its answer (see `answers.final_number`), or None."""
    return answers.final_number(text)


def same(answer: str, gold: str) -> bool:
    """Whether both are the same number, exactly (see `answers.same_number`)."""
    return answers.same_number(answer, gold)
