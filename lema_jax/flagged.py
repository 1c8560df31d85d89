"""The flags of a stage's config: defined, parsed and explained from its options (`stage.option`)."""

import dataclasses
import difflib
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
from lema_jax.stage import Option

C = TypeVar("C", bound=stage.Config)
G = TypeVar("G")
_WIDTH = 110
_HOME = re.compile(r"(?<==)~(?=/|$)|(?<=jsonl:)~(?=/)|(?<=,)~(?=/)")  # which the shell leaves within `--out=~/runs`


def parse(name: str, kind: type[C], argv: Sequence[str]) -> C:
    """The config that a command line gives, as `cli.Command.parse`."""
    argv = [_HOME.sub(os.path.expanduser("~"), one) for one in argv]
    for file in _config_files(argv):
        if not os.path.isfile(file):
            found = "is a folder" if os.path.isdir(file) else "is not there"
            raise UserError(
                f"--config={file} {found}; name a Python file that has get_config(), such as those of configs/"
            )
    values = _define(name, kind, argv)
    given_by_file = next(
        (one.metadata["config_file"] for one in stage.options(kind) if "config_file" in one.metadata), None
    )
    try:
        rest = values([name, *argv])
    except flags.Error as error:
        lines = (_config_line(raised, argv, given_by_file) for raised in _causes(error))
        raise UserError(next(filter(None, lines), f"{_short(str(error))}; see --help")) from None
    except KeyError as error:
        line = _unknown_field(argv, given_by_file) or f"--config: {error.args[0]}"
        raise UserError(_config_line(error, argv, given_by_file) or line) from error
    except UserError:
        raise
    except Exception as error:
        line = f"in the command line or its --config: {_message(error)}"
        raise UserError(_config_line(error, argv, given_by_file) or disk.explain(error, None) or line) from error
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; values follow their flag, lists are separated by commas")
    for one in stage.options(kind):
        value = values[one.name].value
        if "config_file" in one.metadata:
            _require_kind(value, one.metadata["config_file"], one.default is dataclasses.MISSING)
        elif value is None and one.default is dataclasses.MISSING:
            raise UserError(f"--{one.name} is missing; {_sentence(one.metadata['help'])}; see --help")
    return _read(kind, values)


# --- definition and reading -------------------------------------------------------------------------------------------


def _define(name: str, kind: type, argv: Sequence[str]) -> flags.FlagValues:
    """Flags of their own for this command line: importing a stage defines none, and two commands never meet."""
    values = flags.FlagValues()
    for one in stage.options(kind):
        classes, help = ranges.classes(one.hint), one.metadata["help"]
        default = None if one.default is dataclasses.MISSING else one.default
        if "config_file" in one.metadata:
            from ml_collections import config_flags

            config_flags.DEFINE_config_file(one.name, None, help, flag_values=values, sys_argv=[name, *argv])
        elif bool in classes:
            flags.DEFINE_bool(one.name, default, help, flag_values=values)
        elif int in classes:
            flags.DEFINE_integer(one.name, default, help, flag_values=values)
        elif float in classes:
            flags.DEFINE_float(one.name, default, help, flag_values=values)
        elif Sequence in classes:
            parser = _PathsParser() if one.metadata["paths"] else flags.ListParser()
            default = None if default is None else list(default)
            serializer = flags.CsvListSerializer(",")
            flags.DEFINE(parser, one.name, default, help, serializer=serializer, flag_values=values)
        else:
            flags.DEFINE_string(one.name, default, help, flag_values=values)
    return values


def _read(kind: type[G], values: flags.FlagValues) -> G:
    """The config, or a group of it, that the flags give."""
    hints, found = typing.get_type_hints(kind), {}
    for field in ranges.options(kind):
        if "group" in field.metadata:
            found[field.name] = _read(hints[field.name], values)
        else:
            value = values[field.name].value
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


def config_file(kind: type, required: bool = True) -> Any:
    """A field that a Python file gives: `--config=FILE`, whose `get_config()` returns a `kind`; the fields of that can
    be overridden by `--config.field=value`. Where it is not required it may be None."""
    help = "Python file with get_config(), such as those of configs/; --config.FIELD=VALUE overrides its fields."
    default: Any = dataclasses.MISSING if required else None
    return dataclasses.field(default=default, metadata={"help": help, "config_file": kind})


def _require_kind(config: Any, kind: type, required: bool) -> None:
    if config is None and not required:
        return
    if config is None:
        raise UserError("--config is missing; name a file of configs/, such as --config=configs/arithmetic_student.py")
    if not isinstance(config, kind):
        raise UserError(f"--config: get_config() must return a {kind.__name__}, but returned a {type(config).__name__}")


def _unknown_field(argv: Sequence[str], kind: type | None) -> str | None:
    """A field that --config.FIELD=VALUE names and that there is not, and the nearest one."""
    known = [] if kind is None else [field.partition("=")[0] for field in _fields(kind)]
    parts = {field.rpartition(".")[0] for field in known}
    for argument in argv:
        name = argument.lstrip("-").partition("=")[0].removeprefix("config.")
        if argument.lstrip("-").startswith("config.") and name not in known and name not in parts:
            near = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            return f"--config.{name}: there is no such field; {hint}the fields are those of {_file(kind)}"
    return None


def _causes(error: BaseException) -> Iterator[Exception]:
    """The errors that led to this one, the first one first: the libraries wrap what a file raises, twice."""
    if cause := error.__cause__ or error.__context__:
        yield from _causes(cause)
        if isinstance(cause, Exception):
            yield cause


def _file(kind: type | None) -> str:
    """The file that defines a class."""
    return kind.__module__.replace(".", "/") + ".py" if kind else "the file"


def _config_line(error: Exception, argv: Sequence[str], kind: type | None) -> str | None:
    """What a file of --config raised, and in which of its lines; None where it raised nothing."""
    files = set(map(os.path.realpath, _config_files(argv)))
    if kind and isinstance(error, AttributeError) and error.name == "get_config":
        return f"--config={', '.join(_config_files(argv))} has no get_config(); it must return a {kind.__name__}"
    if isinstance(error, SyntaxError) and error.filename and os.path.realpath(error.filename) in files:
        return f"{error.filename}:{error.lineno}: {error.msg}; --config names a Python file that has get_config()"
    lines = [f for f in traceback.extract_tb(error.__traceback__) if os.path.realpath(f.filename) in files]
    if not lines:
        return None
    return f"{lines[-1].filename}:{lines[-1].lineno}: {type(error).__name__}: {_message(error)}"


def _config_files(argv: Sequence[str]) -> list[str]:
    """The files that --config names, without what stands behind a colon for their get_config()."""
    given = []
    for argument, next_one in zip(argv, [*argv[1:], ""]):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            given.append((value if equals else next_one).partition(":")[0])
    return given


def _message(error: Exception) -> str:
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
    groups: dict[str, list[Option]] = {"": []}
    for one in stage.options(kind):
        groups.setdefault(one.group, []).append(one)
    needed = [f"--{one.name}={_placeholder(one)}" for one in stage.options(kind) if one.default is dataclasses.MISSING]
    lines = [" ".join([f"usage: python -m lema_jax.{name}", *needed, "[flags]"]), "", doc.split("\n\n")[0].strip()]
    if example := re.search(r"^ *(python -m (?:.*\\\n)*.*)$", doc, re.MULTILINE):
        lines += ["", "example:", "  " + re.sub(r"\n *", "\n      ", example[1])]
    for one in groups[""]:
        if config := one.metadata.get("config_file"):
            lines += ["", f"fields of --{one.name}, with their defaults:"]
            lines += [f"  --{one.name}.{field}" for field in _fields(config)]
    for title, members in groups.items():
        lines += ["", f"{title or 'flags'}:"]
        for one in members:
            lines += _flag_help(one)
    return "\n".join(lines)


def _fields(config: Any) -> Iterator[str]:
    """The fields of a config and of those in it, with their defaults."""
    hints = typing.get_type_hints(config)
    for field in ranges.options(config):
        classes = [kind for kind in ranges.classes(hints[field.name]) if dataclasses.is_dataclass(kind)]
        if classes:
            yield from (f"{field.name}.{name}" for name in _fields(classes[0]))
        else:
            yield field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default!r}"


def _flag_help(one: Option) -> list[str]:
    shown = f"  --[no]{one.name}" if one.hint is bool else f"  --{one.name}={_placeholder(one)}"
    help, default = one.metadata["help"], one.default
    if default is dataclasses.MISSING:
        help += " Required."
    elif default is True:
        help += " On by default."
    elif default is not False and default not in (None, "", (), math.inf):
        help += f" Default: {','.join(default) if isinstance(default, tuple) else default}."
    return [shown, *textwrap.wrap(help, _WIDTH, initial_indent=6 * " ", subsequent_indent=6 * " ")]


def _placeholder(one: Option) -> str:
    classes = ranges.classes(one.hint)
    if one.metadata.get("choices"):
        return "|".join(one.metadata["choices"])
    if "config_file" in one.metadata:
        return "FILE"
    if Sequence in classes:
        return "PATH,…" if one.metadata["paths"] else "NAME,…"
    return next((name for kind, name in {int: "N", float: "X", Path: "PATH"}.items() if kind in classes), "TEXT")
