r"""Arithmetic as it is written in LaTeX or Unicode, in one plain form: `\frac{1}{2} \times 16` is `1/2 × 16`.

Other commands (`\sqrt`, `\pi`) become one unknown sign, which makes the side beside it invalid (`sides`).
"""

import re

from lema_jax.tasks import presentation

UNREAD = "§"


def arithmetic(text: str) -> str:
    """The text of a step with plain signs for arithmetic: `× / ^ ≈ …`, fractions as `a/b`. Linear in its length."""
    text = _RANGE.sub(UNREAD, _LABEL.sub("\n", presentation.plain(_MARK.sub("", text))))
    if "\\" not in text and "^{" not in text:
        return text
    for _ in range(_DEPTH):
        before = text
        for pattern, new in _GROUPS:
            text = pattern.sub(new, text)
        if text == before:
            break
    for pattern, new in _SIGNS:
        text = pattern.sub(new, text)
    return text


_DEPTH = 6  # of groups inside groups
_MARK = re.compile(r"<<[^<>]*>>")
# `1. `, `2) `, `3- ` at the beginning of a line, and `Step 1 - ` anywhere: not the 3 of `3 - 2`.
_LABEL = re.compile(
    r"^[ \t]*\(?\d{1,2}(?:[.)]|-(?=\s))[ \t]+"
    r"|\b(?:step|day|week|month|year|question|part|case|option|method|example|item)s?[ ]#?\d{1,4}(?:[ ]?[-–—][ ]|:)"
    r"|^[ \t]*[a-z]+[ ]\d{1,2}:",
    re.IGNORECASE | re.MULTILINE,
)
_RANGE = re.compile(r"\b\d{1,4}(?:-\d{1,4}){2,9}\b(?=[ ]+[A-Za-z])")  # a 30-60-90 triangle
_GROUP = r"\{([^{}]*)\}"
_GROUPS = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\\text" + _GROUP, r" \1 "),
        (r"\\boxed\s*" + _GROUP, r" \1 "),
        (r"\\boxed\s*(\d)", r" \1 "),
        (r"\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))", r" \1\2/\3\4"),
        (r"\\frac\s*" + _GROUP + r"\s*" + _GROUP, r" ((\1)/(\2))"),
        (r"\^\s*\{\s*(-?\d+)\s*\}", r"^\1 "),
        (r"\^\s*" + _GROUP, r"^(\1)"),
    )
]
_SIGNS = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\\(?:times|cdot)(?![a-zA-Z])", "×"),
        (r"\\div(?![a-zA-Z])", "/"),
        (r"\\(?:approx|simeq|sim|doteq)(?![a-zA-Z])", "≈"),
        (r"\\(?:cdots|vdots|ddots)(?![a-zA-Z])", "…"),
        (r"\\(?:to|Rightarrow|implies|rightarrow|therefore|iff|le|ge|lt|gt)(?![a-zA-Z])", " → "),
        (r"\\[()]", " "),
        (r"\\[\[\]]|\\\\|&", "|"),
        (r"\\([$%#])", r"\1"),
        (r"\^\\circ", "°"),
        (r"\\(?:[a-zA-Z]+|.)", UNREAD),
    )
]
