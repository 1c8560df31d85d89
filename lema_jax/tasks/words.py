r"""Answers in words: names, days, dates, times, letters of choices, numbers."""

import re
from collections.abc import Sequence

from lema_jax.tasks import number_words, tokens

_NUMBERS = number_words.SMALL.keys() | number_words.NAMED.keys() - {"dozen"} | {"and"}
_MONTHS = tokens.names("january february march april may june july august september october november december")
_DAYS = tokens.names("monday tuesday wednesday thursday friday saturday sunday")
_SHORT = {name[:3]: name for name in (*_MONTHS, *_DAYS)} | {"sept": "september", "tues": "tuesday", "thurs": "thursday"}
_SAME = {
    "infinite": "infinitely many", "infinitely many solutions": "infinitely many", "dne": "undefined",
    "does not exist": "undefined", "the limit does not exist": "undefined", "not defined": "undefined",
    "an infinite number": "infinitely many", "infinite solutions": "infinitely many",
    "infinite number of solutions": "infinitely many",
}  # fmt: skip
_ARTICLES = frozenset(("the", "a", "an"))


def number(expression: Sequence[str]) -> tuple[str, ...] | None:
    """A number in words as tokens (`negative five`, `one hundred and twenty-three`, `two thirds`), or None."""
    words = [token.lstrip(tokens.WORD).lower() for at, token in enumerate(expression) if token != "-" or at == 0]
    sign = words[0] in ("negative", "minus", "-")
    words = words[sign:]
    if words and (parts := number_words.PARTS.get(words[-1].removesuffix("s").replace("halve", "half"))):
        top = number(words[:-1]) if len(words) > 1 and words[:-1] != ["a"] else ("1",)
        return ("-",) * sign + (*top, "/", str(parts)) if top else None
    if not words or not _NUMBERS.issuperset(words) or not number_words.is_whole(words):
        return None
    return ("-",) * sign + (str(number_words.whole(words)),)


def is_text(expression: Sequence[str]) -> bool:
    """Whether the tokens are words, numbers and punctuation, starting with a word."""
    return (tokens.is_word(expression[0]) or (len(expression) > 1 and expression[0] in ("a", "A", "I"))) and all(
        tokens.is_word(token) or token in "-.,'():;?!/&\"" or token.isalnum() for token in expression
    )


def is_date(expression: Sequence[str]) -> bool:
    """Whether the tokens name a month and something else."""
    names = [_name(token.lstrip(tokens.WORD)) for token in expression]
    return len(expression) > 1 and any(name in _MONTHS for name in names)


def plain(expression: Sequence[str]) -> str:
    """A text normalised for comparison: lower case, full names of days and months, no articles or punctuation."""
    words = [token.lstrip(tokens.WORD).lower().replace("'", "") for token in expression]
    words = [_name(word) for word in words if word not in ("-", ".", ",", "'", "(", ")", ":", ";", "?", "!", '"')]
    if any(word in _MONTHS for word in words):  # `July 4th`, `4 July`
        words = sorted(word for word in words if word not in ("th", "st", "nd", "rd", "of", "the"))
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    text = " ".join(words)
    return _SAME.get(text, text)


def time(expression: Sequence[str]) -> str | None:
    """A time with am or pm, `4:30 pm`; `4:30` alone may be a ratio."""
    text = "".join(token.lstrip(tokens.WORD) for token in expression)
    found = _TIME.fullmatch({"noon": "12:00pm", "midnight": "12:00am"}.get(text.lower(), text))
    if found is None:
        return None
    seconds = f":{found['seconds']}" if found["seconds"] else ""
    return f"{int(found['hour'])}:{found['minute'] or '00'}{seconds} {found['half'].lower()}m"


_TIME = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?(?::(?P<seconds>\d{2}))?(?P<half>[aApP])\.?[mM]\.?(?:[A-Z]{2,4})?"
)


def same_time(one: str, other: str) -> bool:
    """Whether two times, as returned by `time` or read from a ratio, may be equal; one without am or pm fits both."""
    (hour, *rest, half), (other_hour, *other_rest, other_half) = _clock(one), _clock(other)
    if rest != other_rest:
        return False
    if half and other_half:
        return half == other_half and hour % 12 == other_hour % 12
    if half or other_half:
        named, hours = (half, (hour, other_hour)) if half else (other_half, (other_hour, hour))
        return hours[1] in (hours[0], hours[0] % 12 + 12 * (named == "pm"))
    return hour == other_hour


def _clock(text: str) -> tuple[int, int, int, str]:
    """Hour, minute, second, and am or pm."""
    clock, _, half = text.partition(" ")
    hour, minute, second = ([int(part) if part.isdigit() else -1 for part in clock.split(":")] + [0, 0])[:3]
    return hour, minute, second, half


def choice(expression: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """The letter of a choice and what follows it: `A`, `(A)`, `A)`, `(A) 5`."""
    if expression[0] != "(" and len(expression) > 1 and expression[1] not in (")", "."):
        return None
    letters = [token.lstrip(tokens.WORD) for token in expression[:3]]
    if len(expression) == 1 and re.fullmatch("[A-Z]", letters[0]):
        return letters[0], ()
    bracket = letters[0] == "("
    at = int(bracket)
    if (
        len(letters) < at + 2
        or not re.fullmatch("[A-Z]", letters[at])
        or (letters[at + 1] != ")" and not (letters[1] == "." and len(expression) > 2))
    ):
        return None
    rest = expression[at + 2 :]
    if rest and rest[0] in (",", ";"):
        return None
    return None if rest and rest[0] in ("(", "^", "=", "*", "/", "+", "-", "!") and not bracket else (letters[at], rest)


def _name(word: str) -> str:
    return _SHORT.get(word.lower(), word.lower())
