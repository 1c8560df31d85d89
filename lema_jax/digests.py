"""SHA-256 of files, several at a time, and comparison of files with the digests recorded when they were written.

Threads hash in parallel (hashlib releases the interpreter lock): 1.4 GB/s each with SHA instructions.
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

_BLOCK = 256 << 20  # bytes of a large file that one thread hashes
_BUFFER = 4 << 20
_CACHED = 64 << 20  # bytes; a smaller file is hashed as fast as a cached digest is read


def sha256(files: Iterable[Path]) -> list[str]:
    """The SHA-256 of each file, 64 hex digits."""
    return _hash([(file, 0, None) for file in files])


def fingerprint(files: Iterable[Path], names: bool = True) -> str:
    """16 hex digits of the content of files in their order, and of their names unless `names` is False.

    The digest of a large file is cached by path, inode, size and times, so that a rerun need not read it.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name if names else ''} {file.stat().st_size} {_content(file)}\n".encode())
    return digest.hexdigest()[:16]


def _content(file: Path) -> str:
    """A hash over the hashes of a file's blocks."""
    found = file.stat()
    key = f"{file.resolve()} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    cached = _cache() / hashlib.sha256(key.encode()).hexdigest()
    if found.st_size >= _CACHED:
        try:
            if len(digest := cached.read_text()) == 64:
                return digest
        except (OSError, ValueError):
            pass
    blocks = _hash([(file, start, _BLOCK) for start in range(0, max(found.st_size, 1), _BLOCK)])
    digest = hashlib.sha256("".join(blocks).encode()).hexdigest()
    if found.st_size >= _CACHED:
        try:
            storage.write(cached, digest)
        except OSError as error:  # a read-only cache: the file is hashed again the next time
            print(f"warning: the fingerprint of {file} is not cached ({error})", file=sys.stderr)
    return digest


def _cache() -> Path:
    place = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(place) / "lema_jax" / "fingerprints"


def _hash(parts: Sequence[tuple[Path, int, int | None]]) -> list[str]:
    """The SHA-256 of each part, (file, first byte, number of bytes or None for the rest)."""
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
    """The SHA-256 of JSON content, independent of white space and the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=dataclasses.asdict).encode()).hexdigest()


def compare(folder: str | Path, expected: Mapping[str, str], remedy: str) -> None:
    """Compares files with their SHA-256. Files that `expected` does not name are ignored.

    Args:
      expected: digest by the file's path below the folder.

    Raises:
      UserError: a file is missing or has another digest; `remedy` ends the message.
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
    """Prints a warning to stderr, once in a process."""
    print(f"warning: {text}", file=sys.stderr)
