"""What a reasoning model says after it has thought, for students and teachers alike."""

import re
from typing import NamedTuple


class Spoken(NamedTuple):
    """A text without its thinking."""

    text: str  # what was said to the reader; empty while a thought is not finished
    whole: bool  # False: the text ends inside a thought, so nothing in it is an answer


# A tag that a model's template opens, and the one that closes it. Some templates write the opening tag into the prompt,
# so a text may have the closing tag alone; some tags are special tokens that a decoder leaves out, and only their names
# are left (`analysis…assistantfinal…`).
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


def spoken(text: str) -> Spoken:
    """What follows the last thought of `text`, or all of it where it holds none.

    A closing tag ends a thought whether or not the text opened it. A thought that was opened last and never closed
    means that the model was cut off while it thought.
    """
    closed = 0
    for closed_by in _CLOSING.finditer(text):
        closed = closed_by.end()
    rest = text[closed:]
    if opened := _OPENING.search(rest):
        return Spoken(rest[: opened.start()].strip() if closed == 0 else rest[: opened.start()], whole=False)
    return Spoken(rest.lstrip() if closed else rest, whole=True)
