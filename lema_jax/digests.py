"""Which bytes files hold: SHA-256, several at a time, and what was written once compared with what is there.

Threads hash side by side (hashlib lets the interpreter go), 1.4 GB/s each where the processor has SHA instructions.
"""

import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lema_jax import storage
from lema_jax.errors import UserError

_BLOCK = 256 << 20  # of a large file, hashed by itself
_BUFFER = 4 << 20
_REMEMBERED = 64 << 20  # smaller files are hashed as fast as what was remembered of them is found


def sha256(files: Iterable[Path]) -> list[str]:
    """The SHA-256 of each file, 64 hex digits."""
    return _hash([(file, 0, None) for file in files])


def fingerprint(files: Iterable[Path], names: bool = True) -> str:
    """16 hex digits of every byte of some files in their order, and of their names if they matter.

    What a large file holds is remembered by where it lies, its inode, size and times, so that a rerun need not read it.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name if names else ''} {file.stat().st_size} {_content(file)}\n".encode())
    return digest.hexdigest()[:16]


def _content(file: Path) -> str:
    """A hash over the hashes of a file's blocks."""
    found = file.stat()
    key = f"{file.resolve()} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    remembered = _memory() / hashlib.sha256(key.encode()).hexdigest()
    if found.st_size >= _REMEMBERED:
        try:
            if len(told := remembered.read_text()) == 64:
                return told
        except (OSError, ValueError):
            pass
    blocks = _hash([(file, start, _BLOCK) for start in range(0, max(found.st_size, 1), _BLOCK)])
    told = hashlib.sha256("".join(blocks).encode()).hexdigest()
    if found.st_size >= _REMEMBERED:
        try:
            storage.write(remembered, told)
        except OSError as error:  # a place where nothing can be written: it is hashed again the next time
            print(f"warning: the fingerprint of {file} is not remembered ({error})", file=sys.stderr)
    return told


def _memory() -> Path:
    place = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(place) / "lema_jax" / "fingerprints"


def _hash(parts: Sequence[tuple[Path, int, int | None]]) -> list[str]:
    """The SHA-256 of each part of a file: from where, and how long (None: to its end)."""
    with ThreadPoolExecutor(max_workers=max(1, min(len(parts), os.cpu_count() or 1))) as threads:
        return list(threads.map(lambda part: _hash_part(*part), parts))


def _hash_part(file: Path, start: int, size: int | None) -> str:
    digest, left = hashlib.sha256(), size
    buffer = memoryview(bytearray(_BUFFER))
    with open(file, "rb", buffering=0) as opened:
        opened.seek(start)
        while count := opened.readinto(buffer if left is None else buffer[:left]):
            digest.update(buffer[:count])
            left = None if left is None else left - count
    return digest.hexdigest()


def hashed(content: Any) -> str:
    """The SHA-256 of JSON content, whatever its white space and the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=dataclasses.asdict).encode()).hexdigest()


def compare(folder: str | Path, expected: Mapping[str, str], remedy: str) -> None:
    """Compares files with their SHA-256. Files that `expected` does not name are no matter.

    Args:
      expected: by the file's path below the folder.

    Raises:
      UserError: a file that is missing or is not what was written; `remedy` says what to do.
    """
    places = [(f"{folder}/{name}".rpartition("/")) for name in expected]
    there = [storage.here(parent) / name for parent, _, name in places]
    if missing := [name for name, file in zip(expected, there) if not file.is_file()]:
        raise UserError(f"{folder}/{missing[0]} is missing; {remedy}")
    for (name, digest), found in zip(expected.items(), sha256(there)):
        if found != digest:
            raise UserError(f"{folder}/{name} is damaged: it is not what was written (its SHA-256 differs); {remedy}")


@functools.cache
def warn_once(text: str) -> None:
    """Says so on stderr, once in a process."""
    print(f"warning: {text}", file=sys.stderr)
