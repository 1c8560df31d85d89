"""Where a folder lies: on this disk, or in Google's object store (gs://…), which stays when slices come and go.

Orbax reads and writes checkpoints in the store itself. All else that a run needs of there is small: it is brought to
this disk first, and what is written there is written whole, since a file in the store cannot grow.
"""

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from lema_jax import interrupts
from lema_jax.errors import UserError

_STORE = "gs://"


def is_remote(folder: str | Path) -> bool:
    """Whether a folder lies in the store."""
    return str(folder).startswith(_STORE)


def place(folder: str | Path) -> Path:
    """The absolute path of a folder or file; one in the store has what `Path` has to read, write and list.

    Raises:
      UserError: it lies in the store, and the package that reaches there is not installed.
    """
    if not is_remote(folder):
        return Path(folder).absolute()
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{folder} is reached by the package gcsfs; install the extra: pip install 'lema_jax[gcs]'")
    from etils import epath

    return cast(Path, epath.Path(folder))


def on_disk(path: str | Path) -> Path:
    """The path of a file or folder that must lie on this disk.

    Raises:
      UserError: it is said to lie in the store.
    """
    if is_remote(path):
        raise UserError(f"{path} must lie on this disk; name a place here, and copy with gcloud storage")
    return Path(path)


def here(folder: str | Path) -> Path:
    """A folder on this disk with the files of that one (its own, not its subfolders'): itself, or a copy of them.

    A copy is made once and lives as long as the process.
    """
    return _brought(str(folder)) if is_remote(folder) else Path(folder)


@functools.cache
def _brought(folder: str) -> Path:
    copy = Path(tempfile.mkdtemp(prefix="lema_jax_"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    if place(folder).exists():
        copy_files(folder, copy)
    return copy


def copy_files(source: str | Path, target: str | Path) -> None:
    """Copies a folder's own files into another, made where it is absent, wherever the two lie."""
    for file in place(source).iterdir():
        if not file.is_dir():
            write(place(target) / file.name, file.read_bytes())


def write(file: str | Path, content: str | bytes) -> None:
    """Replaces a file in one step: a kill, a full disk or a lost machine leaves the one before, or none.

    Its folder is made where it is absent. What is no regular file (/dev/stdout) is written to as it is.
    """
    file = place(file)
    content = content.encode() if isinstance(content, str) else content
    if is_remote(file) or (file.exists() and not file.is_file()):
        file.write_bytes(content)  # an object of the store is there whole or not at all
        return
    with replacing(file) as opened:
        opened.write(content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A file of this disk to write anew, beside the one before; it takes that one's place when all went well."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file = file.resolve()  # a link stays one
    beside = file.with_name(file.name + ".tmp")
    try:
        with open(beside, "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(beside, file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync(file.parent)


def put_in_place(beside: Path, folder: Path) -> None:
    """Gives a finished folder of this disk its name, once every file in it is on the disk."""
    for path in (*beside.rglob("*"), beside):
        _sync(path)
    os.replace(beside, folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A fresh folder beside `out`, on this disk, that becomes it when all went well and is gone when not.

    `out` must not exist, or be empty.
    """
    beside = out.with_name(out.name + ".tmp")
    remove = lambda: shutil.rmtree(beside, ignore_errors=True)
    remove()
    with interrupts.cleaning(remove):
        beside.mkdir(parents=True)
        yield beside
        put_in_place(beside, out)


def append(file: Path, text: str) -> None:
    """Adds a line to a file of a `place`, made where it is absent."""
    if is_remote(file):
        file.write_text((file.read_text() if file.exists() else "") + text)
    else:
        with open(file, "a") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())


def read_json(file: str | Path, remedy: str) -> Any:
    """What a JSON file holds.

    Raises:
      UserError: it cannot be read as JSON; `remedy` says what to do.
      FileNotFoundError: it is not there.
    """
    content = place(file).read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        found = "is empty" if not content else f"is not JSON ({error})"
        raise UserError(f"{file} {found}: the disk was full, or it is damaged; {remedy}") from None


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log that grows by JSON objects with a number `step`; [] where there is no log.

    A last line that was cut by a kill is passed over, any other that cannot be read with a warning.
    """
    if not file.is_file():
        return []
    lines = file.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            found.append(entry | {"step": int(entry["step"])})
        except (ValueError, TypeError, LookupError, RecursionError):
            if number < len(lines):
                print(f"warning: {file}:{number} is damaged and left out", file=sys.stderr)
    return found


def beside(folder: str | Path, relative: str) -> str:
    """The folder that a path from another leads to; the store itself knows no `..`."""
    if is_remote(folder):
        return _STORE + posixpath.normpath(posixpath.join(str(folder).removeprefix(_STORE), relative))
    return os.path.join(folder, relative)


def relative(folder: str | Path, start: str | Path) -> str:
    """The path that leads from `start` to a folder.

    Raises:
      UserError: one lies on this disk and the other in the store.
    """
    if is_remote(folder) != is_remote(start):
        raise UserError(f"{folder} and {start} must lie together, both on this disk or both on gs://")
    return os.path.relpath(str(folder).removeprefix(_STORE), str(start).removeprefix(_STORE))
