"""Asks through the Batch API: half the price, answers within a day.

A run writes the requests that lack an answer into input files, uploads them, and looks at the batches until they end;
then it takes in the finished rows of each (of an expired or cancelled one too) and does the same with what is still
missing. Each step is noted beside the replies before the next, so a run that is stopped or killed anywhere finds its
batches again and submits nothing twice.
"""

import asyncio
import collections
import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lema_jax.errors import UserError
from lema_jax.records import Appender, Row
from lema_jax.teacher import budget, chat
from lema_jax.teacher.budget import Budget, Tokens
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.client import NO_ROOM, on_interrupt, refusal

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

MOST_REQUESTS = 50_000  # in an input file, as the endpoint's documentation has it
MOST_BYTES = 200_000_000
_ENDED = ("completed", "failed", "expired", "cancelled")
_KEY = "input_sha256"  # under which a batch's metadata names its input
_ROWS_A_WRITE = 500
_SUBMITTED, _TAKEN_IN = "submitted/", "taken_in/"


class Note(Row):
    """That something was done; `id` says what: `uploading/<sha256>`, `submitted/<batch>`, `taken_in/<batch>`."""

    input: str = ""  # sha256 of the input file


class Batches:
    """One run over a list of requests; see the module.

    Args:
      client: the official client.
      replies: where answers are kept; the notes stand beside it, in `….batches.jsonl`.
      poll_s: seconds between looks at a batch.
    """

    def __init__(self, client: "AsyncOpenAI", replies: Appender[Reply], spending: Budget, poll_s: float):
        self._client = client.with_options(max_retries=5)
        self._replies, self._budget, self._poll_s = replies, spending, poll_s
        self._interrupted = asyncio.Event()
        self._failures: collections.Counter[str] = collections.Counter()  # of the last round
        self._held: list[Tokens] = []

    async def run(self, requests: Callable[[], Iterable[Request]], right: Callable[[Request, Reply], bool]) -> Outcome:
        """Submits, waits and takes in, until nothing is missing or a round brought nothing new.

        Ctrl-C (or SIGTERM) stops the waiting; the batches go on at the endpoint, and a rerun takes them up.

        Raises:
          UserError: the endpoint refuses in a way that another try cannot mend, or a batch failed its validation.
        """
        worst = {request.id: budget.worst(request.body) for request in requests()}
        stopped = ""
        with (
            Appender(self._replies.path.with_suffix(".batches.jsonl"), Note) as self._notes,
            on_interrupt(self._interrupted.set),
            self._clear_errors(),
        ):
            await self._take_in(worst)  # what an earlier run submitted
            while not stopped and any(id not in self._replies.rows for id in worst):
                stopped = await self._submit(requests(), worst)
                if not await self._take_in(worst) or self._interrupted.is_set():
                    break
        if self._interrupted.is_set():
            stopped = "interrupted; the batches go on at the endpoint"
        return self._outcome(requests(), right, stopped)

    def _outcome(self, requests: Iterable[Request], right: Callable[[Request, Reply], bool], stopped: str) -> Outcome:
        outcome = Outcome(0, failures=self._failures, stopped=stopped)
        for request in requests:
            outcome.total += 1
            if reply := self._replies.rows.get(request.id):
                outcome.answered += 1
                outcome.right += right(request, reply)
        return outcome

    async def _submit(self, requests: Iterable[Request], worst: dict[str, Tokens]) -> str:
        """Submits what has no answer, as far as the budget has room; returns why not all, or ""."""
        missing = self._missing(requests, worst)
        file = self._replies.path.with_suffix(".batch_input.jsonl")
        try:
            for digest in self._write_parts(file, missing):
                await self._submit_part(file, digest)
        finally:
            file.unlink(missing_ok=True)
        return "" if len(self._held) == sum(id not in self._replies.rows for id in worst) else NO_ROOM

    def _missing(self, requests: Iterable[Request], worst: dict[str, Tokens]) -> Iterator[Request]:
        seen: set[str] = set()
        for request in requests:
            if request.id in self._replies.rows or request.id in seen:
                continue
            if not self._budget.hold(worst[request.id]):
                return
            self._held.append(worst[request.id])
            seen.add(request.id)
            yield request

    def _write_parts(self, path: Path, requests: Iterator[Request]) -> Iterator[str]:
        """Writes one input file after the other to `path`, within the endpoint's limits; yields each one's sha256."""
        line = self._line(requests)
        while line:
            digest, count, size = hashlib.sha256(), 0, 0
            with open(path, "wb") as file:
                while line and count < MOST_REQUESTS and size + len(line) <= MOST_BYTES:
                    file.write(line)
                    digest.update(line)
                    count, size = count + 1, size + len(line)
                    line = self._line(requests)
            if not count:
                raise UserError(f"a request of {len(line):,} bytes is more than a batch may have")
            yield digest.hexdigest()

    def _line(self, requests: Iterator[Request]) -> bytes:
        """The next request as a line of an input file; empty after the last."""
        if (request := next(requests, None)) is None:
            return b""
        body = chat.wire(request.body, self._client)
        line = {"custom_id": request.id, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line).encode() + b"\n"

    async def _submit_part(self, path: Path, digest: str) -> None:
        begun = Note(id=f"uploading/{digest}", input=digest)
        batch_id = await self._unnoted_batch(digest) if begun.id in self._notes.rows else ""
        if begun.id not in self._notes.rows:
            self._notes.append(begun)
        if not batch_id:
            with open(path, "rb") as file:
                uploaded = await self._client.files.create(file=file, purpose="batch")
            batch = await self._client.batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_KEY: digest},
            )
            batch_id = batch.id
        self._notes.append(Note(id=_SUBMITTED + batch_id, input=digest))

    async def _unnoted_batch(self, digest: str) -> str:
        """A batch of this input that a run submitted and could not note, because it was killed in between."""
        page = await self._client.batches.list(limit=100)
        for batch in page.data:
            if (batch.metadata or {}).get(_KEY) == digest and _SUBMITTED + batch.id not in self._notes.rows:
                return batch.id
        return ""

    async def _take_in(self, worst: dict[str, Tokens]) -> int:
        """Waits for every batch that was submitted and not taken in; returns the number of new answers."""
        self._failures.clear()
        new = 0
        notes = [id.removeprefix(_SUBMITTED) for id in self._notes.rows if id.startswith(_SUBMITTED)]
        for batch_id in (id for id in notes if _TAKEN_IN + id not in self._notes.rows):
            batch = await self._end_of(batch_id)
            if batch is None:
                return new
            for file_id in (batch.output_file_id, batch.error_file_id):
                new += await self._read_answers(file_id, worst) if file_id else 0
            self._notes.append(Note(id=_TAKEN_IN + batch_id))
            kept = sum(id in self._replies.rows for id in worst)
            print(f"{kept:,}/{len(worst):,} answered · ${self._budget.spent_usd:.2f} spent", file=sys.stderr)
            if batch.status == "failed":
                said = [error.message for error in (batch.errors and batch.errors.data) or []]
                raise UserError(f"the endpoint did not accept batch {batch_id}: {'; '.join(map(str, said[:3]))}")
        for tokens in self._held:
            self._budget.release(tokens)
        self._held.clear()
        return new

    async def _end_of(self, batch_id: str) -> "Batch | None":
        """The batch when it has ended; None when Ctrl-C came first."""
        told = ""
        while not self._interrupted.is_set():
            batch = await self._client.batches.retrieve(batch_id)
            counts = batch.request_counts
            state = f"{batch.status}, {counts.completed:,} of {counts.total:,} answered" if counts else batch.status
            if state != told:
                print(f"{batch_id}: {state}", file=sys.stderr)
                told = state
            if batch.status in _ENDED:
                return batch
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._interrupted.wait(), self._poll_s)
        return None

    async def _read_answers(self, file_id: str, worst: dict[str, Tokens]) -> int:
        """Keeps the answers of an output or error file; returns how many are new."""
        new: dict[str, Reply] = {}
        before = len(self._replies.rows)
        async with self._client.files.with_streaming_response.content(file_id) as response:
            async for line in response.iter_lines():
                reply = self._read_line(line, worst)
                if reply and reply.id not in self._replies.rows:
                    new[reply.id] = reply
                if len(new) == _ROWS_A_WRITE:
                    self._replies.append(*new.values())
                    new = {}
        self._replies.append(*new.values())
        return len(self._replies.rows) - before

    def _read_line(self, line: str, worst: dict[str, Tokens]) -> Reply | None:
        """The answer in a line; None, and a failure counted, where there is none."""
        if not line.strip():
            return None
        try:
            row = json.loads(line)
            id, response = row["custom_id"], row.get("response") or {}
            status, body = response.get("status_code"), response.get("body") or {}
            if status == 200:
                reply = chat.read_completion(id, body, worst.get(id, Tokens(0, 0)), self._budget.price)
                self._budget.spend(reply.tokens, reply.cost_usd)
                return reply
            error = row.get("error") or body.get("error") or {}
            if finish := chat.unanswerable(status or 0, error):
                return chat.unanswered(id, finish)
            self._failures[str(error.get("code") or f"status {status}")] += 1
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            self._failures[f"a malformed line ({type(error).__name__})"] += 1
        return None

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            raise refusal(error, self._client) from None
        except openai.APIConnectionError as error:
            raise UserError(f"{self._client.base_url}: {error} The same command goes on from here.") from None
