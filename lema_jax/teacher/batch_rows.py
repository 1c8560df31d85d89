"""The rows of a batch's output and error files: answers, failures, and malformed lines."""

import collections
import dataclasses
import re
from pathlib import Path
from typing import Any

from lema_jax.teacher import chat, response, wording
from lema_jax.teacher.budget import Tokens
from lema_jax.teacher.chat import Reply
from lema_jax.teacher.client import Books, Known
from lema_jax.teacher.response import Answer, Failure, Kind
from lema_jax.teacher.wire import LARGEST, Wire

_ROWS_A_WRITE = 500


class Rows:
    """Reads the rows of output and error files into the replies.

    Args:
      worst: the worst case of each request, by its id.
    """

    def __init__(self, wire: Wire, known: Known, books: Books, worst: dict[str, Tokens]) -> None:
        self._wire, self._known, self._books, self._worst = wire, known, books, worst
        self._replies, self._budget = books.replies, books.budget
        self.failures: collections.Counter[str] = collections.Counter()  # by reason, until the next `start`
        self.learnt = False  # whether this round found a parameter that the endpoint does not take

    def start(self) -> None:
        """Starts a round: forgets the failures of the one before."""
        self.failures.clear()
        self.learnt = False

    def take(self, path: Path, succeeded: bool) -> int:
        """Appends the answers of an output or error file to the replies; returns how many are new.

        Args:
          succeeded: whether it is the output file, whose rows are paid for.
        """
        new: dict[str, Reply] = {}
        before = len(self._replies.rows)
        with open(path, "rb") as file:  # a line ends at \n alone: JSON may hold other line separators
            for number, line in enumerate(file, start=1):
                reply = self._read_line(line, f"{path.stem.rpartition('-')[2]}/{number}", succeeded)
                if reply and reply.id not in self._replies.rows and reply.id not in new:
                    self._budget.spend(reply.tokens, reply.cost_usd, booked=reply.bound)
                    new[reply.id] = reply
                if len(new) == _ROWS_A_WRITE:
                    self._replies.append(*new.values())
                    new = {}
        self._replies.append(*new.values())
        return len(self._replies.rows) - before

    def _read_line(self, line: bytes, name: str, succeeded: bool) -> Reply | None:
        """The answer in a line; None, and a failure counted, where there is none.

        Args:
          name: of the line, for what is booked when it cannot be read.
        """
        if not line.strip():
            return None
        try:
            if len(line) > LARGEST:
                raise ValueError(f"too long: {len(line):,} bytes")
            row = response.decode(line)
        except ValueError as error:
            row, flaw = None, str(error)
        else:
            flaw = "no JSON object"
        if not isinstance(row, dict):
            if succeeded:
                self.book(self._worst_of(_id_in(line)), f"a line that cannot be read: {flaw}", name)
            self.failures[f"a malformed line ({flaw.partition(':')[0]})"] += 1
            return None
        id, failure_or_answer = row.get("custom_id"), _judge(row)
        if not isinstance(id, str) or not re.fullmatch(r"[0-9a-f]{16}", id):
            self.failures["a line that answers no request of ours"] += 1
            return None
        if id in self._replies.rows:
            return None
        worst = self._worst_of(id)
        if isinstance(failure_or_answer, Answer):
            self._known.answered = True
            return chat.reply(id, failure_or_answer, worst, self._budget.price)
        return self._failure(id, failure_or_answer, worst, name)

    def _failure(self, id: str, failure: Failure, worst: Tokens, name: str) -> Reply | None:
        """The reply that records a permanent failure; None where another round may bring an answer."""
        if failure.kind is Kind.PERMANENT or (failure.kind is Kind.REJECTED and self._known.answered):
            return chat.unanswered(id, failure, self._budget.price)
        if failure.usage != (None, None) or failure.billed:
            lost = worst if failure.billed else Tokens(0, 0)
            self.book(chat.counted(failure.usage, lost), failure.said, name, bound=None in failure.usage)
        sent = self._known.dialect.body(dict.fromkeys(failure.parameters))
        self.learnt |= self._known.dialect.learn(failure.parameters, sent)
        self.failures[self._wire.clean(failure.said)] += 1
        return None

    def _worst_of(self, id: str) -> Tokens:
        """The worst case of a request; that of the largest one for a request that is not of this run."""
        return self._worst.get(id) or Tokens(*map(max, zip(Tokens(0, 0), *self._worst.values())))

    def book(self, tokens: Tokens, reason: str, name: str, *, bound: bool = True) -> None:
        """Counts tokens that are paid for without an answer, once for each name."""
        if self._books.losses.add(tokens, self._wire.clean(reason), name=name, bound=bound):
            self._budget.spend(tokens, booked=bound)


def _judge(row: dict[str, Any]) -> Answer | Failure:
    """What a row of an output or error file means, by the rules for a single response."""
    came = row.get("response")
    status = came.get("status_code") if isinstance(came, dict) else None
    body = came.get("body") if isinstance(came, dict) else None
    if error := row.get("error"):
        said = f"{error.get('code', '')}: {wording.message(error)}" if isinstance(error, dict) else str(error)
        return dataclasses.replace(response.judge(wording.status_in(error), error), said=response.plain(said))
    if body is None:
        return Failure(Kind.TRANSIENT, "a row without a response", status if isinstance(status, int) else 0)
    if not isinstance(status, int) or status == 200:
        return response.read_completion(body)
    return response.judge(status, wording.error_in(body) or body or "")


def _id_in(line: bytes) -> str:
    found = re.search(rb'"custom_id"\s*:\s*"([0-9a-f]{16})"', line)
    return found[1].decode() if found else ""
