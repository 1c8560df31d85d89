"""Every command that a README, a docstring or a launch script shows: its module is there and takes its flags.

Commands are parsed as far as `--help` would, with the values they show; nothing is run. A value that is left open
(`…`, `$variable`, `NAME`) is replaced by one that the flag takes.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = [
    path for path in ROOT.rglob("README.md") if not {".venv", "runs", ".git"} & set(path.relative_to(ROOT).parts)
]
SCRIPTS = sorted((ROOT / "launch").glob("*"))
MODULES = sorted((ROOT / "lema_jax").glob("*.py"))
_COMMAND = re.compile(r"(?:-m[ ]+lema_jax\.|(?<![\w./-])lema[ ]+)(\w+)(?=[ \n`\"]|$)([^\n`]*)")
_OPEN = re.compile(r"[$…<>]|^[A-Z_]+$")
_END = re.compile(r"\s(?:#|&&|\|\|?|;|>|\))(?:\s.*|$)|\)$")


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
        if any(word.startswith("--") for word in words)
    ]


_PARSE = """
import importlib, json, re, runpy, sys
from absl import flags
from absl.testing import flagsaver

module, listed = sys.argv[1], json.loads(sys.argv[2])
importlib.import_module(module)
F = flags.FLAGS

def of_config(words):
    # What is wrong with the words of a config: its file is loaded, and each field looked up in it.
    found = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--config"))
    file = found.pop("config", "…")
    if OPEN.search(file):
        return ""
    config = runpy.run_path(file)["get_config"]()
    for field, value in found.items():
        at = config
        for name in field.split(".")[1:]:
            if not hasattr(at, name):
                return f"{file} has no field {field}"
            at = getattr(at, name)
        if isinstance(at, (bool, int, float)) and not OPEN.search(value) and value not in ("True", "False"):
            float(value)
    return ""

OPEN = re.compile("[$…<>]")

def filled(word):
    name, equals, value = word[2:].partition("=")
    if name == "config" or name.startswith("config."):
        return None
    if not equals or not OPEN.search(value) and not (value.isupper() and value.isalpha()):
        return word
    if name not in F:
        return word
    flag = F[name]
    if flag.flag_type() == "bool":
        return f"--{name}"
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        return f"--{name}={choices[0]}"
    low = getattr(flag.parser, "lower_bound", None)
    return f"--{name}={max(1, low or 1) if flag.flag_type() in ('int', 'float') else 'x'}"

for where, words, whole in listed:
    try:
        with flagsaver.flagsaver():
            F.unparse_flags()
            rest = F(["x", *(word for word in map(filled, words) if word)])
            if wrong := of_config(words) or rest[1:]:
                print("told: " + json.dumps([where, words, f"not taken: {wrong}"]))
    except (flags.Error, KeyError, ValueError, TypeError, FileNotFoundError) as error:
        if whole or "must have a value" not in str(error):  # a script has the rest in a variable
            print("told: " + json.dumps([where, words, str(error)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for _, name, _, _ in all_commands()}))
def test_every_command_shown_is_one_that_is_there(name):
    assert (ROOT / "lema_jax" / f"{name}.py").is_file()
    listed = [(where, words, whole) for where, of, words, whole in all_commands() if of == name]
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, f"lema_jax.{name}", json.dumps(listed)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("told: ")] == []


def test_the_commands_are_found():
    found = all_commands()
    assert {"convert", "sample", "correct", "build_data", "train", "evaluate", "report"} <= {
        name for where, name, _, _ in found if where == "README.md"
    }
    assert {"sample", "correct", "build_data", "train"} <= {
        name for where, name, _, _ in found if where == "launch/smollm2_gsm8k.sh"
    }


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_readme_names_is_there(readme):
    text = readme.read_text()
    for script in set(re.findall(r"\b(?:bash|sbatch)\s+(launch/[\w.]+)", text)):
        assert (ROOT / script).is_file(), script
    for named, words in re.findall(r"`[^`]*?\b(bench_\w+)(?:\.py)?\b([^`]*)`", text):
        source = ROOT / "tests" / "benchmarks" / f"{named}.py"
        assert source.is_file(), named
        for flag in re.findall(r"--(\w+)", words):
            assert re.search(rf"[\"'](?:--)?{flag}[\"']", source.read_text()), f"{named} --{flag}"
    for style in set(re.findall(r"`?--prompt_style=`?(\w+)", text)):
        from lema_jax.tasks import prompts

        assert style in prompts.STYLES
    for config in set(re.findall(r"configs/\w+\.py", text)):
        assert (ROOT / config).is_file(), config
