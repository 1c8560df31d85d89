"""Commands run as a user runs them, in this process: exit code, standard output and error."""

import contextlib
import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from lema_jax import cli, records
from lema_jax.records import Attempt

KEY = "sk-secret-of-the-test"
ENDPOINT = {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}


@dataclasses.dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(command: cli.Command, *flags: object, env: Mapping[str, str] = ENDPOINT) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, env), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command(*flags)
    assert KEY not in out.getvalue() + err.getvalue()
    return Done(code, out.getvalue(), err.getvalue())


def succeeds(command: cli.Command, *flags: object, env: Mapping[str, str] = ENDPOINT) -> str:
    """What it prints."""
    done = run(command, *flags, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(command: cli.Command, *flags: object, env: Mapping[str, str] = ENDPOINT) -> str:
    """What it prints to standard error: last the one line that says why it failed."""
    done = run(command, *flags, env=env)
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1].startswith("error: ")
    return done.stderr


def attempts(path: Path) -> list[Attempt]:
    """What `sample` wrote."""
    return list(records.read(path, Attempt))
