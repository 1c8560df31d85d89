r"""Presentation: what a text looks like and not what it says, taken away once, before anything reads it.

`plain` is for whole reasoning paths and for answers, for golds and for models' texts, for every task: the same
characters for the same signs, no Markdown, no LaTeX that only says how a thing is set.
"""

import re
import unicodedata

_SUPERSCRIPTS = {ord(char): value for char, value in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")}
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+")


def characters(text: str) -> str:
    """Unicode's compatibility forms as plain characters; a superscript becomes `^{…}`, for `x²` is not `x2`."""
    text = _SUPERSCRIPT.sub(lambda found: "^{" + found.group().translate(_SUPERSCRIPTS) + "}", text)
    return unicodedata.normalize("NFKC", text)
