"""What a number of a configuration may be, said beside its field, and checked with the field's type."""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KEY = "range"  # of a field's metadata
MOST = 2**31 - 1
_LARGEST = 1e15


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; `above` and `below` leave these out, `also` are others that mean something."""

    low: float
    high: float
    above: bool = False
    below: bool = False
    also: Sequence[float] = ()

    def __contains__(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below else value <= self.high
        return (over and under) or value in self.also

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {_figures(self.low)}" if math.isfinite(self.low) else ""
        high = f"{'below' if self.below else 'at most'} {_figures(self.high)}" if math.isfinite(self.high) else ""
        others = (f"or {_figures(value)}" for value in self.also if math.isfinite(value))
        return ", ".join([*filter(None, [" and ".join(filter(None, [low, high]))]), *others])


def within(default: Any, low: float, high: float, **how: Any) -> Any:
    """A dataclass field of numbers of that `Range`, whose further fields `how` gives."""
    return dataclasses.field(default=default, metadata={KEY: Range(low, high, **how)})


def options(config: Any) -> list[dataclasses.Field]:
    """The fields of a dataclass, or of one of its kind, that its constructor takes."""
    return [field for field in dataclasses.fields(config) if field.init]


def of(field: dataclasses.Field) -> Range | None:
    """The range that a field was made with."""
    return field.metadata.get(KEY)


def problems(config: Any) -> list[str]:
    """Every field of a dataclass (not of those in it) that has another type than it says, or is outside of its range.

    A whole number serves for any number. NaN is in no range, and infinity only where a range has it in `also`. A number
    whose range has no other upper bound is at most 2**31 - 1 (whole) or 1e15.
    """
    types_of = typing.get_type_hints(type(config))
    found = []
    for field in options(config):
        value, kinds, allowed = getattr(config, field.name), classes(types_of[field.name]), of(field)
        if value is None and type(None) in kinds:
            continue
        also = allowed.also if allowed else ()
        if not any(_is(value, kind) for kind in kinds):
            wanted = " or ".join(_NAMES.get(kind, kind.__name__) for kind in kinds if kind is not type(None))
            found.append(f"{field.name}={_shown(value)} must be {wanted}")
        elif isinstance(value, float) and not math.isfinite(value) and value not in also:
            found.append(f"{field.name}={value} must be a finite number" + (f", {allowed}" if allowed else ""))
        elif allowed is not None and value not in allowed:
            found.append(f"{field.name}={_shown(value)} must be {allowed}")
        elif (int in kinds or float in kinds) and (allowed is None or math.isinf(allowed.high)) and value not in also:
            most = _LARGEST if float in kinds else MOST
            if abs(value) > most:
                found.append(f"{field.name}={_shown(value)} must be at most {_figures(most)}")
    return found


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    Path: "a path",
    Sequence: "a list",
}


def classes(hint: Any) -> tuple[Any, ...]:
    """The classes that a type hint names: `tuple` of `tuple[str, ...]`."""
    whole = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    return tuple(typing.get_origin(kind) or kind for kind in whole)


def _is(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return isinstance(value, numbers.Integral if kind is int else numbers.Real) and not isinstance(value, bool)
    return isinstance(value, (list, tuple) if kind is Sequence else kind)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _figures(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
