"""Numbers written in words: `twenty-five`, `two and a half`, `negative twelve`."""

import itertools
import re
from collections.abc import Iterable
from fractions import Fraction

NAMED = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_ONES = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    "|eighteen|nineteen"
)
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
SMALL = {word: value for value, word in enumerate(_ONES.split("|"))}
SMALL |= {word: 10 * value for value, word in enumerate(_TENS.split("|"), start=2)}
PARTS = dict(zip(("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), range(3, 11)))
PARTS |= {"half": 2, "quarter": 4, "hundredth": 100, "thousandth": 1000}
_PART = rf"(?P<part>{'|'.join(PARTS)}|halve)s?\b(?!\s+grade)"  # two third graders are two
_FEW = "a|one|two|three|four|five|six|seven|eight|nine"
_AND_PART = rf"\s+and\s+(?P<few>{_FEW})[\s-]+"
_WORD = "|".join([*SMALL, *NAMED])
_NOT_PART = rf"(?!and\s+(?:{_FEW})[\s-]+(?:{'|'.join(PARTS)})s?\b)"
_NUMBER_WORDS = rf"(?:{'|'.join(SMALL)})(?:[\s-]+{_NOT_PART}(?:and\s+)?(?:{_WORD}))*"
WORDS = re.compile(
    rf"(?P<minus>-\s*|\bnegative\s+)?\b(?P<words>{_NUMBER_WORDS})\b"
    rf"(?:(?:{_AND_PART}|[\s-]+){_PART}(?:\s+(?P<scale>{'|'.join(NAMED)})\b)?)?",
    re.IGNORECASE,
)
_OTHER_PART = re.compile(
    r"[\s-]+(?:eleven|twelf|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)tie)ths?\b",
    re.IGNORECASE,
)
_AT_ONCE = re.compile(
    r"\W*(?:(?:the|a|an|about|only|exactly|approximately|negative|therefore|thus|simply|just|indeed|that)\W+)*",
    re.IGNORECASE,
)


def start(plain: str) -> int:
    """Where a number at the beginning of a text starts, behind articles and `about`, `exactly`, `therefore`."""
    begins = _AT_ONCE.match(plain)
    return begins.end() if begins else 0


_HALF = re.compile(r"half\b(?!\s+(?:a|an|the)\b)", re.IGNORECASE)


def whole(words: Iterable[str]) -> int:
    """The value of the words of a whole number, in lower case, each one in SMALL or NAMED, or `and`."""
    total = group = 0
    for word in words:
        if word in SMALL:
            group += SMALL[word]
        elif word == "hundred":
            group = (group or 1) * 100
        elif word != "and":
            total, group = total + (group or 1) * NAMED[word], 0
    return total + group


def value(plain: str) -> Fraction | None:
    """The one number in words of a text without digits; a lone `one` counts only at the beginning.

    `nineteen ninety-five`, `two-fifty` and `five sixteenths` are none.
    """
    found = list(WORDS.finditer(plain))
    begins = start(plain)
    if not found and _HALF.match(plain, begins):
        return Fraction(1, 2)
    found = [one for one in found if one.group().lower() != "one" or one.start() <= begins]
    if len(found) != 1 or _OTHER_PART.match(plain, found[0].end()):
        return None
    named = re.split(r"[\s-]+", found[0]["words"].lower())
    if not is_whole(named):
        return None
    total = Fraction(whole(named))
    if part := (found[0]["part"] or "").lower():
        several = Fraction(1, PARTS.get(part, 2))
        few = (found[0]["few"] or "").lower()
        total = total + SMALL.get(few, 1) * several if few else total * several
        total *= NAMED.get((found[0]["scale"] or "").lower(), 1)
    return -total if found[0]["minus"] else total


def is_whole(words: Iterable[str]) -> bool:
    """Whether words, each one in SMALL or NAMED, or `and`, are one whole number: `nineteen ninety-five` are two."""
    return all(itertools.starmap(_joins, itertools.pairwise(words)))


def _joins(word: str, other: str) -> bool:
    """Whether one word may follow another in a whole number: ones behind tens, anything behind `hundred`."""
    if other in SMALL:
        return word not in SMALL or (SMALL[word] >= 20 and SMALL[other] < 10)
    return other in NAMED or word in NAMED  # `and`
