"""Golds in words that MATH's rules, which end an answer at `. ` or `not`, would not read whole: `St. Louis`.

Of a statement as many words are read as the gold has.
"""

import functools
import re

from lema_jax.records import Problem
from lema_jax.tasks import csqa, cues, math, presentation
from lema_jax.tasks.math import official_grader, prompt

__all__ = ["extract", "is_one", "official_grader", "prompt", "same"]

_IN_WORDS = re.compile(r"[^\W\d_](?:[^\W\d_]|[\s.,;:!?&()'’\"-])*")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}")
_ARTICLE = re.compile(r"the\s+", re.IGNORECASE)
_CLOSING = " .,;:!?*\"'"


@functools.lru_cache(maxsize=1_024)
def is_one(gold: str) -> bool:
    """Whether a gold without choices is words alone of which MATH's rules read less."""
    if not _IN_WORDS.fullmatch(gold):
        return False
    problem = Problem(id="", task="", split="", question="", gold=gold)
    read = math.extract(csqa.completion(problem), problem)
    return read is None or (gold.startswith(read) and _letters(read) != _letters(gold))


def extract(text: str, problem: Problem) -> str | None:
    """The first words, as many as the gold has, of the last statement of an answer that is no remark; else None.

    Without a cue it is a last line that has no more words than the gold.
    """
    most = len(problem.gold.split())
    for statement in cues.statements(text):
        line = _TEXT.sub(r"\1", statement.text).strip(" :\n*$").partition("\n")[0]
        if (article := _ARTICLE.match(line)) and not _ARTICLE.match(problem.gold):
            line = line[article.end() :]
        if (said := _first(line, most)) and (not statement.remark or same(said, problem.gold)):
            return said
    lines = presentation.document(cues.of_this_question(text)).strip().splitlines()
    return _first(lines[-1], most) if lines and len(lines[-1].split()) <= most else None


def same(answer: str, gold: str) -> bool:
    """Whether both have the same letters, whatever their case and what stands between."""
    return _letters(answer) == _letters(gold)


def _first(line: str, most: int) -> str | None:
    return " ".join(line.split()[:most]).strip(_CLOSING) or None


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, presentation.characters(text).casefold()))
