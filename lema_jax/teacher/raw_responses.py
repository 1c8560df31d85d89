"""Raw responses, written to the disk before they are parsed.

A response that may have been billed is written to `….raw.jsonl` beside the replies; the answer that is parsed from it
is appended to the replies after that. The next run parses what a killed run received and did not parse.
"""

import asyncio
from pathlib import Path
from typing import Generic, TypeVar

from lema_jax.errors import UserError
from lema_jax.records import Appender, Row

R = TypeVar("R", bound=Row)


class RawResponse(Row):
    """A response with status 200; `id` is the request's, a slash, and which of its responses this is, from 1."""

    body: str  # the key is left out; bytes that are no UTF-8 are U+FFFD


class GroupCommit(Generic[R]):
    """Appends rows of many asyncio tasks: one write and one fsync serve all tasks that wait."""

    def __init__(self, file: Appender[R]) -> None:
        self.file = file
        self._disk = asyncio.Lock()
        self._unsaved: list[R] = []

    async def append(self, row: R) -> None:
        """Appends a row; returns when it is on the disk.

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


def next_id(file: Appender[RawResponse], request: str) -> str:
    """The id of the next response to a request."""
    number = 1
    while f"{request}/{number}" in file.rows:
        number += 1
    return f"{request}/{number}"


def last(file: Appender[RawResponse], request: str) -> RawResponse | None:
    """The last response to a request; None where there is none."""
    number = int(next_id(file, request).rpartition("/")[2]) - 1
    return file.rows[f"{request}/{number}"] if number else None


def beside(replies: Path) -> Path:
    """The file of the responses that these replies are parsed from."""
    return replies.with_suffix(".raw.jsonl")
