"""Random samples of rows to read, and the fields by which a page filters them."""

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from lema_jax.evidence import groups

K = TypeVar("K", bound=Hashable)

STEPS = (3, 6, 10)
TOKENS = (100, 200, 400, 800)


def numbers(kinds: Sequence[K], each: int, seed: int) -> set[int]:
    """The row numbers of a random sample (seeded) of at most `each` rows of every kind."""
    of: dict[K, list[int]] = {}
    for number, kind in enumerate(kinds):
        of.setdefault(kind, []).append(number)
    draw = random.Random(seed)
    return {number for rows in of.values() for number in draw.sample(rows, min(each, len(rows)))}


def bucket(value: int, edges: Sequence[int], unit: str) -> str:
    """The name of the range that a size falls into: `up to 100 tokens`, `101 to 200 tokens`, `over 800 tokens`."""
    low = 0
    for edge in edges:
        if value <= edge:
            return f"{low + 1:,} to {edge:,} {unit}" if low else f"up to {edge:,} {unit}"
        low = edge
    return f"over {low:,} {unit}"


def order(name: str) -> tuple[bool, bool, list[tuple[int, int, str]]]:
    """Sort key of a field's values: numbers as numbers, the smallest bucket first."""
    return not name.startswith("up to "), name.startswith("over "), groups.natural(name)


def filters(items: Sequence[Mapping[str, str]]) -> list[dict[str, object]]:
    """The fields with more than one value, each with its values in natural order; all items have the same fields."""
    names = items[0].keys() if items else ()
    values = {name: sorted({item[name] for item in items}, key=order) for name in names}
    return [{"key": name, "groups": of} for name, of in values.items() if len(of) > 1]
