"""The compiled programs of a run, out/compiled: JAX's cache, of which only what was written whole is read.

JAX writes an entry in place and reads what is there: one that a kill or a full disk cut short would be compiled anew,
with a warning, at every start, and a changed byte may go unnoticed. So the SHA-256 of each entry is kept beside.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from lema_jax import storage
from lema_jax.errors import UserError

_SUMS = "sha256.json"
_ENTRIES = "*-cache"


@contextlib.contextmanager
def kept_in(out: str | Path) -> Iterator[None]:
    """Within, compiled programs are kept in a run's folder, unless JAX was told to keep them elsewhere. Entries that
    are damaged, or were not `seal`ed, are removed."""
    if not out or jax.config.values["jax_compilation_cache_dir"]:
        yield
        return
    folder = _folder(out)
    _remove_damaged(folder)
    compilation_cache.reset_cache()  # it reads its folder once
    jax.config.update("jax_compilation_cache_dir", str(folder))
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


def _remove_damaged(folder: Path) -> None:
    if folder.exists():
        sums, found = _sums(folder), _found(folder)
        whole = {name: sum for name, sum in found.items() if sums.get(name) == sum}
        for name in found.keys() - whole.keys():
            (folder / name).unlink(missing_ok=True)
        if whole != sums and jax.process_index() == 0:
            storage.write(folder / _SUMS, json.dumps(whole, indent=2) + "\n")


def seal(out: str | Path) -> None:
    """Notes what the entries hold that were written since."""
    folder = _folder(out)
    if jax.process_index() or jax.config.values["jax_compilation_cache_dir"] != str(folder) or not folder.exists():
        return
    before = _sums(folder)
    there = sorted(file.name for file in folder.glob(_ENTRIES))
    if there != sorted(before):
        new = [name for name in there if name not in before]
        storage.write(folder / _SUMS, json.dumps(before | _found(folder, new), indent=2) + "\n")


def _folder(out: str | Path) -> Path:
    return storage.place(out) / "compiled"


def _found(folder: Path, names: list[str] | None = None) -> dict[str, str]:
    """The SHA-256 of entries (of all that are there), by name."""
    names = sorted(file.name for file in folder.glob(_ENTRIES)) if names is None else names
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def _sums(folder: Path) -> dict[str, str]:
    try:
        told = storage.read_json(folder / _SUMS, "")
    except (UserError, FileNotFoundError):
        return {}
    return told if isinstance(told, dict) else {}
