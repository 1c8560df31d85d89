"""Numbers written in words: `twenty-five`, `two and a half`, `negative twelve`."""

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
_WORD = "|".join([*SMALL, *NAMED])
_NUMBER_WORDS = rf"(?:{'|'.join(SMALL)})(?:[\s-]+(?:and\s+)?(?:{_WORD}))*"
WORDS = re.compile(
    rf"(?P<minus>-\s*|\bnegative\s+)?\b(?P<words>{_NUMBER_WORDS})\b"
    rf"(?:(?:\s+and\s+a)?[\s-]+(?P<part>half|halves|thirds?|quarters?|fourths?)\b)?",
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
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}


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
    """The one number in words of a text without digits; a lone `one` counts only at the beginning."""
    found = list(WORDS.finditer(plain))
    begins = start(plain)
    if not found and _HALF.match(plain, begins):
        return Fraction(1, 2)
    found = [one for one in found if one.group().lower() != "one" or one.start() <= begins]
    if len(found) != 1:
        return None
    total = Fraction(whole(re.split(r"[\s-]+", found[0]["words"].lower())))
    if part := (found[0]["part"] or "").lower():
        several = Fraction(1, _PARTS[part])
        total = total + several if " and a" in found[0].group().lower() else total * several
    return -total if found[0]["minus"] else total
