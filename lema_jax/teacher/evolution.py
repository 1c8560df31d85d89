"""Correction-centric evolution (paper, section 2.3): new questions from those that the student got wrong."""

import random
import re
from collections.abc import Sequence

from lema_jax.records import Problem, Row
from lema_jax.tasks import Task


class LeftOut(Row):
    """A new question that did not become a problem."""

    question: str  # empty where the reply has none
    seed: str  # the id of the problem that it comes from
    why: str


ANSWERS = 3  # answers asked for each new question; their majority is its pseudo-gold


def draw_seeds(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """`count` problems drawn with replacement: one that is listed twice is drawn twice as often."""
    return random.Random(seed).choices(problems, k=count)


def read_question(reply: str) -> str:
    """The new question in a reply, on one line; empty when there is none.

    Headings are left out, and so are a solution or an answer that the teacher gave away, a second question, and
    paragraphs about the question.
    """
    text = _FENCE.sub("", reply)
    if solution := _SOLUTION.search(text):
        text = text[: solution.start()]
    if heading := _HEADING.search(text):
        text = text[heading.end() :]
    if second := _HEADING.search(text):
        text = text[: second.start()]
    if (asked := _ASKS.search(text)) and (given := _GIVEN_AWAY.search(text, asked.end())):
        text = text[: given.start()]
    paragraphs = [one for one in re.split(r"\n\s*\n", text) if one.strip()]
    while len(paragraphs) > 1 and _BEHIND.match(paragraphs[-1]) and _ASKS.search(" ".join(paragraphs[:-1])):
        paragraphs.pop()
    if len(paragraphs) > 1 and _BEFORE.match(paragraphs[0].strip()) and _ABOUT.search(paragraphs[0]):
        paragraphs.pop(0)
    text = " ".join(" ".join(paragraphs).split()).strip('*_"“” ')
    return text if _ASKS.search(text) else ""


_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)
_HEADING = re.compile(
    r"^[*_#> \t]*+(?:(?:sure|certainly|of course|ok|okay)\b[,.! ]*+)?"
    r"(?:here(?: is|['’]s)\b[^:\n]{0,60}?\b|(?:new |evolved |rewritten |revised |modified )?)(?:question|problem)"
    r"(?:[^:\n]{0,40}:[*_ \t]*+|[*_ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
# A paragraph about the question, behind it or before it.
_BEHIND = re.compile(
    r"[\s*_(>-]*(?:note\b[^?]*\b(?:answer|question|problem|version|original)\b|(?:let['’]s|let us|to) solve\b"
    r"|this (?:new |evolved )?(?:version|question|problem)\b|i (?:have |['’]ve )?(?:changed|kept|made|added)\b)[^?]*$",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"(?:sure|certainly|of course|ok|okay|here(?:['’]s| is)|absolutely)\b[^?\d]*$", re.IGNORECASE)
_ABOUT = re.compile(r"\b(?:question|problem|version|story)\b", re.IGNORECASE)
_SOLUTION = re.compile(
    r"^[*_#> \t]*+(?:(?:solution|answer|explanation)\b[*_ \t]*+:|step 1\b[*_ \t]*+[:.])", re.IGNORECASE | re.MULTILINE
)
_GIVEN_AWAY = re.compile(
    r"(?:^|(?<=[.?!])\s++)[*_#> \t]*+(?:(?:so|thus|therefore|hence),? )?the (?:\w+ )?answer is\b",
    re.IGNORECASE | re.MULTILINE,
)
_ASKS = re.compile(
    r"\?|\b(?:find|compute|determine|evaluate|calculate|express|solve|simplify|what|how)\b", re.IGNORECASE
)


def majority(task: Task, answers: Sequence[str | None]) -> tuple[str, int] | None:
    """The answer that most agree on, as the first of them gave it, and how many do; None when no two agree."""
    given = [answer for answer in answers if answer is not None]
    votes = [sum(task.same(other, answer) for other in given) for answer in given]
    if max(votes, default=0) < 2:
        return None
    best = votes.index(max(votes))
    return given[best], votes[best]
