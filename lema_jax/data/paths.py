"""Which of a student's right solution paths are worth learning from: those whose sums hold, and say something new."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from lema_jax.data import curate
from lema_jax.tasks import claims
from lema_jax.tasks.steps import split_steps

T = TypeVar("T")


def holds(text: str) -> bool:
    """Whether each sum of a solution holds: a right answer may stand after wrong ones (RFT, arXiv 2308.01825)."""
    return all(claim.holds for claim in claims.of_steps(split_steps(text)))


def equations(text: str) -> tuple[str, ...]:
    """The equations of a solution in their order, without words, units and layout (RFT, arXiv 2308.01825).

    `5 boxes x $3 = $15` and `5 * 3 = 15` are the same one. Of a text without sums these are the formulas with an equals
    sign, and of one without formulas the text itself.
    """
    sums = tuple(
        f"{claim.expression} = {claim.stated}".replace(" ", "") for claim in claims.of_steps(split_steps(text))
    )
    return sums or tuple(_formulas(text)) or (curate.normal(text),)


def distinct(rows: Iterable[T], question: Callable[[T], Hashable], text: Callable[[T], str]) -> list[T]:
    """The first row of each question with its equations."""
    found: dict[tuple[Hashable, tuple[str, ...]], T] = {}
    for row in rows:
        found.setdefault((question(row), equations(text(row))), row)
    return list(found.values())


def first(rows: Iterable[T], question: Callable[[T], Hashable], most: int) -> list[T]:
    """The first `most` rows of each question."""
    taken: Counter[Hashable] = Counter()
    kept = []
    for row in rows:
        if taken[question(row)] < most:
            kept.append(row)
        taken[question(row)] += 1
    return kept


_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LAYOUT = re.compile(r"\\(?:left|right)\b|\\[,;!:]|\s")


def _formulas(text: str) -> Iterator[str]:
    for found in _FORMULA.finditer(text):
        formula = _LAYOUT.sub("", next(filter(None, found.groups())))
        if "=" in formula:
            yield formula
