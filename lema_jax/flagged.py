"""The flags of a stage's config: defined, parsed and explained from its options (`stage.option`)."""

import collections.abc
import dataclasses
import math
import os
import re
import textwrap
import traceback
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import flags

from lema_jax import disk, ranges, stage
from lema_jax.errors import UserError

C = TypeVar("C", bound=stage.Config)
_WIDTH = 110


def parse(name: str, kind: type[C], argv: Sequence[str]) -> C:
    """The config that a command line gives, as `cli.Command.parse`."""
    for file in _config_files(argv):
        if not os.path.isfile(file):
            found = "is a folder" if os.path.isdir(file) else "is not there"
            raise UserError(
                f"--config={file} {found}; name a Python file that has get_config(), such as those of configs/"
            )
    values = _define(name, kind, argv)
    try:
        rest = values([name, *argv])
    except flags.Error as error:
        raise UserError(f"{_short(str(error))}; see --help") from None
    except KeyError as error:
        told = f"--config: {error.args[0]}; the fields are those of lema_jax/training/config.py"
        raise UserError(_config_line(error, argv) or told) from error
    except UserError:
        raise
    except Exception as error:
        told = f"in the command line or its --config: {_words(error)}"
        raise UserError(_config_line(error, argv) or disk.explain(error, None) or told) from error
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; values follow their flag, lists are separated by commas")
    config = _read(kind, {}, values)
    stage.require(config)
    return config


# --- definition and reading -------------------------------------------------------------------------------------------


def options(kind: type, defaults: collections.abc.Mapping[str, Any] = {}) -> Iterator[tuple[dataclasses.Field, Any]]:
    """The options of a config and of the groups in it, with their defaults."""
    for field in ranges.options(kind):
        if "group" in field.metadata:
            yield from options(_class(kind, field), field.metadata["group"].keywords)
        else:
            yield field, defaults.get(field.name, field.default)


def _class(kind: type, field: dataclasses.Field) -> type:
    return typing.get_type_hints(kind)[field.name]


def hints(kind: type) -> dict[str, Any]:
    """The types of a config's options, those of its groups among them, by name."""
    found = {}
    for field in ranges.options(kind):
        hint = typing.get_type_hints(kind)[field.name]
        found.update(hints(hint) if "group" in field.metadata else {field.name: hint})
    return found


def _define(name: str, kind: type, argv: Sequence[str]) -> flags.FlagValues:
    """Flags of their own for this command line: importing a stage defines none, and two commands never meet."""
    values, types_of = flags.FlagValues(), hints(kind)
    for field, default in options(kind):
        kinds, metadata = ranges.classes(types_of[field.name]), field.metadata
        given = None if default is dataclasses.MISSING else default
        if "config_file" in metadata:
            from ml_collections import config_flags

            config_flags.DEFINE_config_file(
                field.name, None, metadata["help"], flag_values=values, sys_argv=[name, *argv]
            )
        elif bool in kinds:
            flags.DEFINE_bool(field.name, given, metadata["help"], flag_values=values)
        elif int in kinds:
            flags.DEFINE_integer(field.name, given, metadata["help"], flag_values=values)
        elif float in kinds:
            flags.DEFINE_float(field.name, given, metadata["help"], flag_values=values)
        elif collections.abc.Sequence in kinds:
            parser = _PathsParser() if metadata["paths"] else flags.ListParser()
            given = None if given is None else list(given)
            flags.DEFINE(
                parser, field.name, given, metadata["help"], serializer=flags.CsvListSerializer(","), flag_values=values
            )
        else:
            flags.DEFINE_string(field.name, given, metadata["help"], flag_values=values)
    return values


def _read(kind: type[C], defaults: collections.abc.Mapping[str, Any], values: flags.FlagValues) -> C:
    found: dict[str, Any] = dict(defaults)
    for field in ranges.options(kind):
        if "group" in field.metadata:
            found[field.name] = _read(_class(kind, field), field.metadata["group"].keywords, values)
        else:
            value = values[field.name].value
            if "config_file" in field.metadata:
                _require_kind(value, field.metadata["config_file"])
            elif value is None and field.default is dataclasses.MISSING and field.name not in defaults:
                raise UserError(f"--{field.name} is missing; {_sentence(field.metadata['help'])}; see --help")
            found[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**found)


class _PathsParser(flags.ListParser):
    """A list of paths, separated by commas. A comma belongs to a name where a path with it exists, or where the name
    stands in double quotes; a path may begin with `jsonl:` and end with `@step`."""

    def parse(self, argument: str | list[str]) -> list[str]:
        if isinstance(argument, list) or '"' in argument:
            return super().parse(argument)
        split, found = argument.split(",") if argument else [], []
        while split:
            sizes = range(len(split), 1, -1)  # of several names that exist, the longest
            size = next((size for size in sizes if _exists(",".join(split[:size]))), 1)
            found.append(",".join(split[:size]).strip())
            del split[:size]
        return found


def _exists(path: str) -> bool:
    path = path.removeprefix("jsonl:").strip()
    folder, _, step = path.rpartition("@")
    return os.path.exists(path) or ((step.isdecimal() or step == "best") and os.path.exists(folder))


# --- a file of --config -----------------------------------------------------------------------------------------------


def config_file(kind: type) -> Any:
    """A required field that a Python file gives: `--config=FILE`, whose `get_config()` returns a `kind`; the fields of
    that can be overridden by `--config.field=value`."""
    help = "Python file with get_config(), such as those of configs/; --config.FIELD=VALUE overrides its fields."
    return dataclasses.field(metadata={"help": help, "config_file": kind})


def _require_kind(config: Any, kind: type) -> None:
    if config is None:
        raise UserError("--config is missing; name a file of configs/, such as --config=configs/arithmetic_student.py")
    if not isinstance(config, kind):
        raise UserError(f"--config: get_config() must return a {kind.__name__}, but returned a {type(config).__name__}")


def _config_line(error: Exception, argv: Sequence[str]) -> str | None:
    """What a file of --config raised, and in which of its lines; None where it raised nothing."""
    files = set(map(os.path.realpath, _config_files(argv)))
    if isinstance(error, AttributeError) and error.name == "get_config":
        return f"--config={', '.join(_config_files(argv))} has no get_config(); it must return a TrainConfig"
    if isinstance(error, SyntaxError) and error.filename and os.path.realpath(error.filename) in files:
        return f"{error.filename}:{error.lineno}: {error.msg}; --config names a Python file that has get_config()"
    lines = [f for f in traceback.extract_tb(error.__traceback__) if os.path.realpath(f.filename) in files]
    if not lines:
        return None
    return f"{lines[-1].filename}:{lines[-1].lineno}: {type(error).__name__}: {_words(error)}"


def _config_files(argv: Sequence[str]) -> list[str]:
    """The files that --config names, without what stands behind a colon for their get_config()."""
    given = []
    for argument, next_one in zip(argv, [*argv[1:], ""]):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            given.append((value if equals else next_one).partition(":")[0])
    return given


def _words(error: Exception) -> str:
    return _short(str(error)) or type(error).__name__


def _sentence(help: str) -> str:
    """The first sentence of a help text, as a part of another."""
    first = help.split(". ")[0].rstrip(".")
    return first[:1].lower() + first[1:]


def _short(text: str) -> str:
    """The first line of a text, or as much of it as can be read."""
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= 300 else f"{line[:200]} … {line[-90:]}"


# --- help -------------------------------------------------------------------------------------------------------------


def help_text(name: str, doc: str, kind: type) -> str:
    """What `--help` prints: a usage line, what the stage does, one example, and the flags in groups."""
    required = [field for field, default in options(kind) if default is dataclasses.MISSING]
    needed = " ".join(f"--{field.name}={_placeholder(field, hints(kind)[field.name])}" for field in required)
    lines = [f"usage: python -m lema_jax.{name} {needed} [flags]".replace("  ", " "), "", doc.split("\n\n")[0].strip()]
    if example := re.search(r"^ *(python -m (?:.*\\\n)*.*)$", doc, re.MULTILINE):
        lines += ["", "example:", "  " + re.sub(r"\n *", "\n      ", example[1])]
    for field in ranges.options(kind):
        if config := field.metadata.get("config_file"):
            lines += ["", f"fields of --{field.name}, with their defaults:"]
            lines += [f"  --{field.name}.{name}" for name in _fields(config)]
    for title, fields in _groups(kind):
        lines += ["", f"{title}:"]
        for field, default in fields:
            lines += _flag_help(field, default, hints(kind)[field.name])
    return "\n".join(lines)


def _fields(config: Any) -> Iterator[str]:
    """The fields of a config and of those in it, with their defaults."""
    hints_of = typing.get_type_hints(config)
    for field in ranges.options(config):
        classes = [kind for kind in ranges.classes(hints_of[field.name]) if dataclasses.is_dataclass(kind)]
        if classes:
            yield from (f"{field.name}.{name}" for name in _fields(classes[0]))
        else:
            yield field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default!r}"


def _groups(kind: type) -> Iterator[tuple[str, list[tuple[dataclasses.Field, Any]]]]:
    """The options of a config and of each group in it, under the first line of the group's docstring."""
    own = [(f, f.default) for f in ranges.options(kind) if "group" not in f.metadata]
    yield "flags", own
    for field in ranges.options(kind):
        if "group" in field.metadata:
            part = _class(kind, field)
            title = (part.__doc__ or field.name).split("\n")[0].rstrip(".")
            yield title, list(options(part, field.metadata["group"].keywords))


def _flag_help(field: dataclasses.Field, default: Any, hint: Any) -> list[str]:
    shown = f"  --[no]{field.name}" if hint is bool else f"  --{field.name}={_placeholder(field, hint)}"
    told = field.metadata["help"]
    if default is dataclasses.MISSING:
        told += " Required."
    elif default not in (None, "", (), [], math.inf) and not isinstance(default, bool):
        told += f" Default: {default}."
    elif default is True:
        told += " On by default."
    return [shown, *textwrap.wrap(told, _WIDTH, initial_indent=6 * " ", subsequent_indent=6 * " ")]


def _placeholder(field: dataclasses.Field, hint: Any) -> str:
    kinds = ranges.classes(hint)
    if field.metadata.get("choices"):
        return "|".join(field.metadata["choices"])
    if "config_file" in field.metadata:
        return "FILE"
    names = {int: "N", float: "X", Path: "PATH"}
    if collections.abc.Sequence in kinds:
        return "PATH,…" if field.metadata["paths"] else "NAME,…"
    return next((name for key, name in names.items() if key in kinds), "TEXT")
