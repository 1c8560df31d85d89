"""Every command that a README, a docstring or a launch script shows: its module is there and takes its flags.

Commands are parsed as far as `--help` would, with the values they show; nothing is run. A value that is left open
(`…`, `$variable`, `NAME`) is replaced by one that the flag takes.
"""

import dataclasses
import importlib
import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from lema_jax import ranges, stage
from lema_jax.errors import UserError

ROOT = Path(__file__).parents[1]
READMES = [
    ROOT / "CONTRIBUTING.md",
    *(path for path in ROOT.rglob("README.md") if not {".venv", "runs", ".git"} & set(path.relative_to(ROOT).parts)),
]
SCRIPTS = sorted(path for path in (ROOT / "launch").iterdir() if path.suffix in (".sh", ".sbatch", ".yaml"))
MODULES = sorted((ROOT / "lema_jax").glob("*.py"))
_COMMAND = re.compile(r"(?:-m[ ]+lema_jax\.|(?<![\w./-])lema[ ]+)(\w+)(?=[ \n`\"]|$)([^\n`]*)")
_OPEN = re.compile(r"[$…<>]|^[A-Z_]+$")  # a value
_END = re.compile(r"(?:\s(?:#|&&?|\|\|?|;|>)|\s?\))(?:\s.*|$)")


def commands(path: Path) -> Iterator[tuple[str, list[str], bool]]:
    """Module and words of each command in a file, and whether these are all; lines that `\\` joins are one."""
    for name, words in _COMMAND.findall(re.sub(r"\\{1,2}\n\s*", " ", path.read_text())):
        bare = _END.sub("", words.replace("[", "").replace("]", ""))
        lexer = shlex.shlex(bare, posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.commenters = True, ""
        try:
            found = list(lexer)
        except ValueError:  # prose that is no command: an apostrophe
            continue
        shown = [word for word in found if word.startswith("--") or not _OPEN.search(word)]
        yield name, shown, len(shown) == len(found)


def all_commands() -> list[tuple[str, str, list[str], bool]]:
    """File, module, words and whether these are all, of each command with a flag; without one it is only named."""
    return [
        (str(path.relative_to(ROOT)), name, words, whole)
        for path in (*READMES, *SCRIPTS, *MODULES)
        for name, words, whole in commands(path)
        if any(word.startswith("--") and word != "--help" for word in words)
    ]


def options(kind: type) -> Iterator[tuple[dataclasses.Field, object]]:
    """The options of a stage's config and of the groups in it, with their types."""
    hints = typing.get_type_hints(kind)
    for field in ranges.options(kind):
        if "group" in field.metadata:
            yield from options(hints[field.name])
        else:
            yield field, hints[field.name]


def filled(word: str, kind: type) -> str:
    """A flag with a value that it takes, where the text leaves its value open."""
    name, _, value = word.removeprefix("--").partition("=")
    found = {field.name: (field, hint) for field, hint in options(kind)}
    if name not in found or not _OPEN.search(value):
        return word
    field, hint = found[name]
    usual = "1" if {int, float} & set(ranges.classes(hint)) else "x"
    choices = field.metadata.get("choices")
    parts = enumerate(value.split(","))  # a list keeps its length, and names nothing twice
    values = (choices[0] if choices else usual + str(n) if n else usual for n, _ in parts)
    return f"--{name}={','.join(values)}"


def wrong(name: str, words: list[str], whole: bool) -> str:
    """Why a stage does not take a command; empty where it does."""
    command = importlib.import_module(f"lema_jax.{name}").command
    files = [word for word in words if word.startswith("--config=") and not _OPEN.search(word)]
    if any(word.startswith("--config") for word in words) and not files:
        files = ["--config=configs/smollm2_gsm8k.py"]  # fields are looked up in this one where none is named
    fields = [word for word in words if word.startswith("--config.") and not _OPEN.search(word)]
    others = [filled(word, command.config) for word in words if not word.startswith(("--config", "--help"))]
    try:
        stage.require(command.parse([*files, *fields, *others]))
    except UserError as error:
        return "" if not whole and re.search("is missing|give either", str(error)) else str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for _, name, _, _ in all_commands()}))
def test_every_command_shown_is_one_that_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = [(where, words, wrong(of, words, whole)) for where, of, words, whole in all_commands() if of == name]
    assert [one for one in found if one[2]] == []


def test_the_commands_are_found():
    found = all_commands()
    assert {"convert", "sample", "correct", "build_data", "train", "evaluate", "report"} <= {
        name for where, name, _, _ in found if where == "README.md"
    }
    assert {"sample", "correct", "build_data", "train"} <= {
        name for where, name, _, _ in found if where == "launch/smollm2_gsm8k.sh"
    }
