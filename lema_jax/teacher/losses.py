"""Tokens that may be billed without an answer: written to the disk, so that no restart exceeds a budget.

A request that is given up after it was sent may be billed, and so may all that was in flight when a run was killed.
Both are booked at their worst case, apart from what was paid; a user who has seen the bill may release the bookings.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher.budget import Price, Tokens
from lema_jax.teacher.chat import Paid

_LOST, _SENT, _LANDED, _RELEASED = "lost/", "sent/", "landed/", "released/"


class Loss(Paid):
    """Tokens that may be billed. `id` names the cause, with a suffix that makes it unique in its file.

    `lost/N`: of a try without an answer. `sent/N`: of all that a run can have in flight at a time; `landed/N` follows
    when that run has ended by itself, and then nothing of it was lost. `released/N`: none of the rows before it counts
    any more.
    """

    bound: bool = True  # False: the endpoint said how many, and they are paid for
    reason: str = ""  # why there is no answer


class Losses:
    """The losses noted beside a file of replies, in `….lost.jsonl`; one process at a time opens them."""

    def __init__(self, replies: Path, price: Price | None) -> None:
        self._file, self._price = Appender(_beside(replies), Loss), price

    def add(self, tokens: Tokens, reason: str = "", *, name: str = "", bound: bool = True) -> bool:
        """Notes a try that may be paid for and has no answer; False where one of this name is noted already."""
        id = f"{_LOST}{name or len(self._file.rows)}"
        if id in self._file.rows:
            return False
        self._note(id, tokens, reason, bound)
        return True

    @contextlib.contextmanager
    def in_flight(self, tokens: Tokens) -> Iterator[None]:
        """Books the tokens while the block runs: they stay booked unless it ends by itself or by a `UserError`.

        After an error of the disk they do: what came then is lost.
        """
        if not sum(tokens):
            yield
            return
        number = len(self._file.rows)
        self._note(f"{_SENT}{number}", tokens)
        try:
            yield
        except UserError:
            self._note(f"{_LANDED}{number}", Tokens(0, 0))
            raise
        self._note(f"{_LANDED}{number}", Tokens(0, 0))

    def _note(self, id: str, tokens: Tokens, reason: str = "", bound: bool = True) -> None:
        usd = self._price and self._price.of(tokens)
        used = {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion, "cost_usd": usd}
        self._file.append(Loss(id=id, **used, bound=bound, reason=reason))

    def release(self) -> int:
        """Releases what is booked so far, since the bill shows that it cost nothing; returns the tokens."""
        booked = sum(sum(row.tokens) for row in self.counting() if row.bound)
        if booked:
            self._note(f"{_RELEASED}{len(self._file.rows)}", Tokens(0, 0))
        return booked

    def counting(self) -> list[Loss]:
        """The losses that count."""
        return counting(list(self._file.rows.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.__exit__(*exc)


def read(replies: Path) -> list[Loss]:
    """The losses of earlier runs beside a file of replies; none where nothing was noted.

    Raises:
      UserError: a malformed line.
    """
    path = _beside(replies)
    return counting(list(records.read(path, Loss, growing=True))) if path.exists() else []


def counting(rows: list[Loss]) -> list[Loss]:
    """Of a file's rows, those whose tokens count: neither landed nor released, unless they are paid for."""
    released = max((number for number, row in enumerate(rows) if row.id.startswith(_RELEASED)), default=-1)
    landed = {row.id.removeprefix(_LANDED) for row in rows if row.id.startswith(_LANDED)}
    kept = (row for number, row in enumerate(rows) if number > released or not row.bound)
    return [row for row in kept if row.id.startswith((_LOST, _SENT)) and row.id.removeprefix(_SENT) not in landed]


def _beside(replies: Path) -> Path:
    return replies.with_suffix(".lost.jsonl")
