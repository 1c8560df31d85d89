"""Where a folder lies: on this disk, or in Google's object store (gs://…), which stays when slices come and go.

Orbax reads and writes checkpoints in the store itself. All else that a run needs of there is small: it is brought to
this disk first, and what is written there is written whole, since a file in the store cannot grow.
"""

import atexit
import contextlib
import functools
import importlib.util
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

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
    place(target).mkdir(parents=True, exist_ok=True)
    for file in place(source).iterdir():
        if not file.is_dir():
            (place(target) / file.name).write_bytes(file.read_bytes())


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
        os.replace(beside, out)


def append(file: Path, text: str) -> None:
    """Adds a line to a file of a `place`, made where it is absent."""
    if is_remote(file):
        file.write_text((file.read_text() if file.exists() else "") + text)
    else:
        with open(file, "a") as opened:
            opened.write(text)


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
