"""What a stage is: a config, whose fields document themselves, and a function of it. `cli` derives the command.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(stage.Config):
        task: str = option(help="Task whose questions to use.")
        limit: int | None = option(None, "Only the first questions.", low=1)
        out: Path | str = option(help="File to write.")

    @stage.function
    def run(config: Config) -> Result: ...

A field without a default is required. A field made by `group` is a dataclass of further fields, whose flags stand
beside the config's own. `run` raises UserError for a config that breaks a rule, before it does anything else.
"""

import contextlib
import dataclasses
import functools
import math
import numbers
import os
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from lema_jax import lock, ranges
from lema_jax.errors import UserError
from lema_jax.ranges import Range

C = TypeVar("C", bound="Config")
R = TypeVar("R")
G = TypeVar("G")


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    above: bool = False,
    also: Sequence[float] = (),
    choices: Sequence[str] = (),
    paths: bool = False,
    repeats: bool = False,
) -> Any:
    """A field of a stage's config.

    Args:
      default: its value where none is given; without one the field is required.
      help: what it means, with its unit; stands alone in `--help`.
      low, high, above, also: the numbers that it may be; see `ranges.Range`.
      choices: the texts that it may be.
      paths: a list of paths; `repeats` lets one stand in it twice.
    """
    metadata: dict[str, Any] = {"help": help, "choices": tuple(choices), "paths": paths, "repeats": repeats}
    if low is not None or high is not None:
        bounds = (-math.inf if low is None else low, math.inf if high is None else high)
        metadata[ranges.KEY] = Range(*bounds, above=above, also=also)
    return dataclasses.field(default=default, metadata=metadata)


def group(kind: type, **defaults: Any) -> Any:
    """A field that is a dataclass of further options; `defaults` replace those of its fields."""
    usual = functools.partial(kind, **defaults)
    return dataclasses.field(default_factory=usual, metadata={"group": usual})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What every stage's config has."""

    def problems(self) -> list[str]:
        """The rules between fields that are broken; fields have types and ranges of their own."""
        return []

    def writes(self) -> str | Path | None:
        """The file or folder that the stage writes, which is locked meanwhile; None for none."""
        return getattr(self, "out", None)

    def join(self) -> bool:
        """Makes this process one of its job's, where several may share the stage; whether it is the one that writes."""
        return True


def function(run: Callable[[C], R]) -> Callable[[C], R]:
    """A stage's function: checks its config, and holds the lock of what it writes while it runs.

    Raises:
      UserError: the config breaks a rule, or another process writes to the same place.
    """

    @functools.wraps(run)
    def checked(config: C) -> R:
        require(config)
        config = exact(config)
        place = config.writes()
        with lock.held(place, _name(run)) if config.join() and place else contextlib.nullcontext():
            return run(config)

    return checked


def _name(run: Callable) -> str:
    main = sys.modules["__main__"]
    return main.__spec__.name if run.__module__ == "__main__" and main.__spec__ else run.__module__


def require(config: Any) -> None:
    """Refuses a config, or a group of options, that breaks a rule.

    Raises:
      UserError: every broken rule, each with field, value and rule.
    """
    found = [f"--{broken}" for part in parts(config) for broken in _broken(part)]
    if found := found or (config.problems() if hasattr(config, "problems") else []):
        raise UserError("; ".join(found))


def exact(config: G) -> G:
    """The config with its numbers as Python's own of the declared type: names of rows tell 1 from 1.0."""
    hints = typing.get_type_hints(type(config))
    values: dict[str, Any] = {}
    for field in ranges.options(config):
        value, kinds = getattr(config, field.name), ranges.classes(hints[field.name])
        if "group" in field.metadata:
            values[field.name] = exact(value)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            values[field.name] = int(value) if int in kinds and isinstance(value, numbers.Integral) else float(value)
    return cast(G, dataclasses.replace(cast(Any, config), **values))


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a config or of a group in it. `default` is MISSING where it is required; `metadata` is `option`'s.

    `group`: the first line of the docstring of the group that it is in; empty for the config's own.
    """

    name: str
    hint: Any
    default: Any
    metadata: Mapping[str, Any]
    group: str = ""


def options(kind: type, group: str = "", defaults: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Option]:
    """The options of a config and of the groups in it."""
    hints = typing.get_type_hints(kind)
    for field in ranges.options(kind):
        hint = hints[field.name]
        if "group" in field.metadata:
            title = (hint.__doc__ or field.name).split("\n")[0].rstrip(".")
            yield from options(hint, title, field.metadata["group"].keywords)
        else:
            yield Option(field.name, hint, defaults.get(field.name, field.default), field.metadata, group)


def names(kind: type) -> list[str]:
    """The names of a config's options, those of its groups among them."""
    return [one.name for one in options(kind)]


def changed(config: Any) -> list[str]:
    """The names of the options, those of groups among them, that do not have their default value."""
    values = {field.name: getattr(part, field.name) for part in parts(config) for field in ranges.options(part)}
    return [one.name for one in options(type(config)) if values[one.name] != one.default]


def parts(config: Any) -> Iterator[Any]:
    """A config and the groups in it."""
    yield config
    for field in ranges.options(config):
        if "group" in field.metadata:
            yield from parts(getattr(config, field.name))


def _broken(part: Any) -> Iterator[str]:
    yield from ranges.problems(part)
    for field in ranges.options(part):
        value = getattr(part, field.name)
        choices = field.metadata.get("choices")
        if choices and value is not None and value not in choices:
            yield f"{field.name}={value} must be one of {', '.join(choices)}"
        elif isinstance(value, (list, tuple)):
            yield from _broken_list(
                field, [os.fspath(one) if isinstance(one, os.PathLike) else str(one) for one in value]
            )


def _broken_list(field: dataclasses.Field, value: Sequence[str]) -> Iterator[str]:
    given = f"{field.name}={','.join(value)}"
    if not all(value):
        yield f"{given} has nothing between two commas; name something, or leave one"
    elif field.metadata.get("paths") and not field.metadata.get("repeats"):
        places = [os.path.realpath(one) if os.path.exists(one) else one.rstrip("/") for one in value]
        if twice := [one for one, place in zip(value, places) if places.count(place) > 1]:
            yield f"{given} names {twice[0]} twice; name it once"
