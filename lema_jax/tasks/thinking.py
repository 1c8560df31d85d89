"""A reasoning model's answer without its thinking, for students and teachers alike."""

import re
from typing import NamedTuple


class Spoken(NamedTuple):
    """A text without its thinking."""

    text: str  # what is addressed to the reader; empty if the thinking never ends
    finished: bool  # False: the text ends inside its thinking, so nothing in it is an answer


# Some chat templates put the opening tag into the prompt, so a text may have the closing tag alone. Some tags are
# special tokens that a decoder skips, so that only their names are left (`analysis…assistantfinal…`).
_NAMES = "think(?:ing)?|thoughts?|reasoning|reflection|scratchpad"
_OPENING = re.compile(
    rf"<(?:seed:)?(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|inner_prefix\|>"
    r"|<\|channel\|>analysis<\|message\|>|<\|im_start\|>think\b|\Aanalysis(?-i:(?=[A-Z]))",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"</(?:seed:)?(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<\|inner_suffix\|>"
    r"|<\|channel\|>final<\|message\|>|<\|im_start\|>answer\b|assistantfinal",
    re.IGNORECASE,
)
_HINTS = ("<", "[", "◁", "assistantfinal")  # a text without any of them has no tag


def spoken(text: str) -> Spoken:
    """What follows the thinking in `text`, or all of it if there is none.

    A closing tag counts even if the text does not open it. A tag that is opened and never closed means that generation
    stopped inside the thinking.
    """
    if not any(map(text.__contains__, _HINTS)) and not text.startswith("analysis"):
        return Spoken(text, finished=True)
    closed = 0
    for closed_by in _CLOSING.finditer(text):
        closed = closed_by.end()
    rest = text[closed:]
    if opened := _OPENING.search(rest):
        return Spoken(rest[: opened.start()].strip() if closed == 0 else rest[: opened.start()], finished=False)
    return Spoken(rest.lstrip() if closed else rest, finished=True)
