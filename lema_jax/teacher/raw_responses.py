"""Raw responses, written to the disk before they are parsed.

A response that may have been billed is written to `….raw.jsonl` beside the replies; the answer that is parsed from it
is appended to the replies after that. The next run parses what a killed run received and did not parse.
"""

import asyncio
from pathlib import Path
from typing import Generic, TypeVar

from lema_jax.records import Appender, Row

R = TypeVar("R", bound=Row)


class RawResponse(Row):
    """A response with status 200; `id` is the request's, a slash, and which of its responses this is, from 1."""

    body: str  # the key is left out; bytes that are no UTF-8 are U+FFFD


class _Group(Generic[R]):
    """Rows that are written together, or not at all."""

    def __init__(self) -> None:
        self.rows: list[R] = []
        self.error: Exception | None = None


class GroupCommit(Generic[R]):
    """Appends rows of many asyncio tasks: one write and one fsync serve all tasks that wait."""

    def __init__(self, file: Appender[R]) -> None:
        self.file = file
        self._disk = asyncio.Lock()
        self._next = _Group[R]()

    async def append(self, row: R) -> None:
        """Appends a row; returns when it is on the disk.

        Raises:
          OSError: it is not, nor is any row that was to be written with it; names the file.
        """
        group = self._next
        group.rows.append(row)
        async with self._disk:
            if group is self._next:  # the first of the group writes it
                self._next = _Group[R]()
                try:
                    await asyncio.to_thread(self.file.append, *group.rows)
                except Exception as error:
                    group.error = error
        if group.error:
            raise group.error


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
