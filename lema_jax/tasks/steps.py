"""Reasoning paths as numbered steps: what a teacher reads, and what a correction starts at."""

import re
from collections.abc import Sequence

_LABEL = re.compile(r"^\s*(?:\*\*)?(?:step\s+)?\(?\d{1,2}\)?\s*[.:)](?:\*\*)?\s+", re.IGNORECASE)
# A sentence ends at . ! ? before white space and a new beginning; a decimal point or "Mrs." does not.
_SENTENCE = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bMrs\.)(?<!\bvs\.)\s+(?=[A-Z$\d])")


def split_steps(text: str) -> list[str]:
    """The steps of a reasoning path, labels such as `Step 2:` removed.

    A step is a line where the text has several, otherwise a sentence (the paper's paths are one paragraph).
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = [part.strip() for part in _SENTENCE.split(lines[0]) if part.strip()]
    return [bare for line in lines if (bare := _LABEL.sub("", line, count=1).strip())]


def number_steps(steps: Sequence[str], first: int = 1) -> str:
    """`Step {first}: …` lines."""
    return "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, start=first))


def original_solution(question: str, steps: Sequence[str]) -> str:
    """The block that a teacher's prompt and a correction example share (the authors' format)."""
    return f"Question: {question}\nOriginal Solution:\n{{\n{number_steps(steps)}\n}}\nIncorrect Step:"


def original_answer(question: str, choices: Sequence[str], text: str) -> str:
    """The same for a question with choices, whose correction names no step."""
    return (
        f"Question: {question}\nCandidate Answers: {', '.join(choices)}.\n"
        f"Original Answer:\n{{\n{text.strip()}\n}}\nMistakes:"
    )
