"""Shared by the tasks whose answer is one number: the paper's prompt, gold chain of thought, extraction, equality."""

import re

from lema_jax.records import Problem
from lema_jax.tasks import answers, cues
from lema_jax.tasks import official_grader as authors

_MARK = re.compile(r"<<[^<>]*>>")


def prompt(problem: Problem) -> str:
    """The paper's zero-shot prompt for mathematics, byte for byte (the authors' released test files)."""
    return f"{cues.MATHEMATICS}.\nQuestion: {problem.question}\nAnswer: Let's think step by step.\n"


def completion(problem: Problem) -> str:
    """The gold rationale, one step a line without `<<a=b>>` marks, and `The answer is {gold}.` as the last line."""
    return f"{_MARK.sub('', problem.rationale).strip()}\nThe answer is {problem.gold}."


def join(body: str, question: str) -> str:
    """A story and its question as one text, with a full stop between them if there is none."""
    body, question = body.strip(), question.strip()
    stop = "." if body[-1:].isalnum() and question[:1].isupper() else ""
    return f"{body}{stop} {question}"


def extract(text: str, problem: Problem) -> str | None:
    """The number that `text` states as its answer (see `answers.final_number`), or None."""
    return answers.final_number(text)


def same(answer: str, gold: str) -> bool:
    """Whether both are the same number, exactly (see `answers.same_number`)."""
    return answers.same_number(answer, gold)


def same_rounded(answer: str, gold: str) -> bool:
    """Whether both are the same number; to the gold's decimals, at least two, if it has any.

    Most such golds are exact, those of one decimal too: $1.25 is not 1.2. Of ASDiv's 61, 8 are rounded, 6 of them means
    to one decimal, which an answer must round likewise, as for the authors' grader. GSM-Plus rounds to two.
    """
    decimals = max(2, len(gold.partition(".")[2])) * ("." in gold)
    value, wanted = answers.number(answer), answers.number(gold)
    if value is None or wanted is None or not decimals:
        return answers.same_number(answer, gold)
    return abs(value - wanted) * 2 <= 10**-decimals


def official_grader(text: str, problem: Problem) -> bool:
    """The authors' verdict for GSM8K: the floats are equal; no answer counts as 0."""
    return (authors.number(text) or 0.0) == _float(problem.gold)


def rounded_official_grader(text: str, problem: Problem) -> bool:
    """The authors' verdict for SVAMP and ASDiv: equal after rounding both to two places."""
    return round(authors.number(text) or 0.0, 2) == round(_float(problem.gold), 2)


def _float(gold: str) -> float:
    value = answers.number(gold)
    if value is None:
        raise ValueError(f"gold {gold!r} is no number")
    return float(value)
