"""The flags of every command: those that users know stay as they are, and `--help` explains each on its own."""

import dataclasses
import importlib
import json
import math
from pathlib import Path

import pytest

from lema_jax import cli, stage

KNOWN = json.loads((Path(__file__).parent / "flags.json").read_text())  # a command's flags and their defaults


def command(name: str) -> cli.Command:
    return importlib.import_module(f"lema_jax.{name}").command


@pytest.mark.parametrize("name", KNOWN)
def test_flags_and_defaults_stay(name):
    found = {}
    for one in stage.options(command(name).config):
        none = one.default is dataclasses.MISSING or one.default == math.inf
        found[one.name] = None if none else list(one.default) if isinstance(one.default, tuple) else one.default
    known = KNOWN[name]
    assert known.keys() <= found.keys()
    assert {flag: found[flag] or None for flag in known} == {flag: value or None for flag, value in known.items()}


@pytest.mark.parametrize("name", KNOWN)
def test_help_stands_alone(name, capsys):
    assert command(name)("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: python -m lema_jax.{name} ")
    assert lines.count("example:") == 1
    assert "  python -m lema_jax." + name in lines[lines.index("example:") + 1]
    assert max(map(len, lines)) <= 120
    for field in stage.options(command(name).config):
        help = field.metadata["help"]
        assert help[:1].isupper() and help.endswith((".", "…")), field.name  # noqa: PT018
        assert len(help.split()) >= 3, field.name
        assert any(line.startswith((f"  --{field.name}=", f"  --[no]{field.name}")) for line in lines)


def test_a_missing_flag_is_named(capsys):
    assert command("sample")("--task=arithmetic") == 1
    assert (
        capsys.readouterr().err == "error: --out is missing; file of attempts to write, or to go on with; see --help\n"
    )
