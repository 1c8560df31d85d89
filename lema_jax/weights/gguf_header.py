"""Validates the counts and lengths in a GGUF header: none may exceed the file.

The layout is llama.cpp's (ggml's `docs/gguf.md`): magic, version, number of tensors, number of metadata entries; then
the entries (key, type, value) and the tensors (name, dimensions, type, offset).
"""

import mmap
import struct
from pathlib import Path

from lema_jax.errors import UserError

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by its type
_STRING, _ARRAY = 8, 9
_SHORTEST_TENSOR = 8 + 4 + 4 + 8  # bytes that describe one: an empty name's length, its dimensions, type, offset
_SHORTEST_ENTRY = 8 + 4 + 1
_MOST_DIMENSIONS = 8  # ggml has four
_DEEPEST = 4  # of arrays in arrays


class _Invalid(ValueError):
    """A header that cannot be true of the file."""


def check(path: str | Path) -> None:
    """Validates a file's header.

    Raises:
      UserError: no such file, no GGUF of a known version, or a count or length that exceeds the file.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _Walk(content).header()
    except OSError as error:
        raise UserError(f"{path} cannot be read as GGUF: {error.strerror}; is the path right?") from None
    except (ValueError, struct.error) as error:
        raise UserError(f"{path} cannot be read as GGUF: {error}; is it cut short, or another format?") from None


class _Walk:
    def __init__(self, content: mmap.mmap):
        self._content, self._at = content, 0

    def header(self) -> None:
        if self._content[:4] != b"GGUF":
            raise _Invalid("it does not begin with GGUF")
        self._at = 4
        version = self._number("I")
        if version & 0xFFFF == 0:
            raise _Invalid("its numbers are big-endian; gguf-py's gguf_convert_endian makes them little-endian")
        if version not in (2, 3):
            raise _Invalid(f"version {version}")
        tensors, entries = self._number("Q"), self._number("Q")
        self._room(tensors, _SHORTEST_TENSOR, "tensors")
        self._room(entries, _SHORTEST_ENTRY, "metadata entries")
        for _ in range(entries):
            self._string()
            self._value(self._number("I"), 0)
        for _ in range(tensors):
            self._string()
            dimensions = self._number("I")
            if dimensions > _MOST_DIMENSIONS:
                raise _Invalid(f"a tensor of {dimensions:,} dimensions")
            self._skip(dimensions, 8)
            self._skip(1, 4 + 8)

    def _value(self, kind: int, depth: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner in _SIZES:
                self._skip(count, _SIZES[inner])
                return
            if depth == _DEEPEST:
                raise _Invalid("arrays in arrays in arrays")
            self._room(count, 8, "values of an array")
            for _ in range(count):
                self._value(inner, depth + 1)
        elif kind in _SIZES:
            self._skip(1, _SIZES[kind])
        else:
            raise _Invalid(f"a value of type {kind}")

    def _string(self) -> None:
        self._skip(self._number("Q"), 1)

    def _number(self, form: str) -> int:
        (found,) = struct.unpack_from("<" + form, self._content, self._at)
        self._at += struct.calcsize(form)
        return found

    def _skip(self, count: int, size: int) -> None:
        self._room(count, size, "bytes" if size == 1 else "values")
        self._at += count * size

    def _room(self, count: int, size: int, what: str) -> None:
        if count * size > len(self._content) - self._at:
            raise _Invalid(f"byte {self._at:,} promises {count:,} {what}, more than the file has")
