"""Rows that are made of replies and written while further requests are in flight."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from lema_jax.records import Appender, Row
from lema_jax.teacher.chat import Reply, Request

R = TypeVar("R", bound=Row)

_SHARE = 0.1  # of the time that writes may take: they wait for the disk, and a fast endpoint must not


class Landing(Generic[R]):
    """Appends the row that `make` makes of each reply to `file`, at once or in one write with later ones.

    A kill loses none of the rows that wait: the replies are on the disk, and the next run makes them again.
    """

    def __init__(self, file: Appender[R], make: Callable[[Request, Reply], R]) -> None:
        self._file, self._make = file, make
        self._waiting: dict[str, R] = {}
        self._next = 0.0  # when to write again

    def __call__(self, request: Request, reply: Reply) -> R:
        """The row of a reply, which is in the file or soon will be."""
        row = self._make(request, reply)
        if row.id not in self._file.rows:
            self._waiting[row.id] = row
            if time.monotonic() >= self._next:
                self._write()
        return row

    def _write(self) -> None:
        rows, self._waiting, started = list(self._waiting.values()), {}, time.monotonic()
        self._file.append(*rows)
        now = time.monotonic()
        self._next = now + (now - started) / _SHARE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._waiting:
            self._write()
