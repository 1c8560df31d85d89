"""What came over the wire, on the disk as it came, before anybody judges it.

A response that may have been billed is written to `….raw.jsonl` beside the replies; the answer that is read from it
goes into the file of replies after that. What a killed run had heard and not yet read is read by the next one.
"""

import asyncio
from pathlib import Path
from typing import Generic, TypeVar

from lema_jax.errors import UserError
from lema_jax.records import Appender, Row

R = TypeVar("R", bound=Row)


class Heard(Row):
    """A response with status 200; `id` is the request's, a slash, and which of its responses this is, from 1."""

    body: str  # the key is left out; bytes that are no UTF-8 are U+FFFD


class Saving(Generic[R]):
    """Appends rows from many tasks at once: whoever comes first saves for all who wait behind it."""

    def __init__(self, file: Appender[R]):
        self.file = file
        self._disk = asyncio.Lock()
        self._unsaved: list[R] = []

    async def keep(self, row: R) -> None:
        """Returns when the row is on the disk.

        Raises:
          UserError: the disk is full or does not allow it.
        """
        self._unsaved.append(row)
        async with self._disk:
            rows, self._unsaved = self._unsaved, []
            if rows:
                try:
                    await asyncio.to_thread(self.file.append, *rows)
                except OSError as error:
                    raise UserError(f"cannot write {self.file.path}: {error.strerror}") from None


def next_id(file: Appender[Heard], request: str) -> str:
    """The id of the next response to a request."""
    number = 1
    while f"{request}/{number}" in file.rows:
        number += 1
    return f"{request}/{number}"


def last(file: Appender[Heard], request: str) -> Heard | None:
    """The last response to a request; None where none was heard."""
    number = int(next_id(file, request).rpartition("/")[2]) - 1
    return file.rows[f"{request}/{number}"] if number else None


def beside(replies: Path) -> Path:
    """Where the responses are kept that became these replies."""
    return replies.with_suffix(".raw.jsonl")
