"""Asks through the Batch API: half the price, answers within a day.

A run writes the requests that lack an answer into input files, uploads them, and polls the batches until they end.
Then it downloads the output of each, reads the finished rows (of an expired or cancelled one too), and submits again
what is still missing. Each step is written to a file beside the replies before the next begins, so a run that is
stopped or killed at any point finds its batches and submits nothing twice.
"""

import asyncio
import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lema_jax import records, storage
from lema_jax.errors import UserError
from lema_jax.records import Appender, Row
from lema_jax.teacher import budget, response
from lema_jax.teacher.batch_rows import Rows
from lema_jax.teacher.budget import Tokens
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.client import Books, Known, on_interrupt
from lema_jax.teacher.response import Failure
from lema_jax.teacher.wire import Wire, broken, is_http_error

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

MOST_REQUESTS = 50_000  # in an input file, as the endpoint's documentation has it
MOST_BYTES = 200_000_000
_ENDED = ("completed", "failed", "expired", "cancelled")
_KEY = "input_sha256"  # under which a batch's metadata names its input
_UPLOADING, _ABSENT, _SUBMITTED, _TAKEN_IN = "uploading/", "absent/", "submitted/", "taken_in/"


class Note(Row):
    """A step that was done; `id` names it: `uploading/<n>`, `submitted/<batch>`, `taken_in/<batch>`.

    `uploading` comes before a batch is submitted, `submitted` after it; `absent/<n>` follows where the endpoint has no
    such batch.
    """

    input: str = ""  # sha256 of the input file
    base_url: str = ""  # where it was submitted
    worst: tuple[int, int] = (0, 0)  # the most tokens that it can cost, of prompts and completions


def pending(replies: Path) -> list[str]:
    """The batches of earlier runs whose answers are not taken in yet; `input <sha256>` where its id is not known."""
    path = _beside(replies)
    notes = list(records.read(path, Note, growing=True)) if path.exists() else []
    ids = dict.fromkeys(note.id for note in notes)
    submitted = (id.removeprefix(_SUBMITTED) for id in ids if id.startswith(_SUBMITTED))
    return [batch for batch in submitted if _TAKEN_IN + batch not in ids] + [f"input {sha}" for sha in _unknown(notes)]


def _unknown(notes: Iterable[Note]) -> dict[str, Note]:
    """The inputs, by sha256, of which it is not known whether the endpoint has a batch of them."""
    unknown: dict[str, Note] = {}
    for note in notes:
        if note.id.startswith(_UPLOADING):
            unknown[note.input] = note
        else:
            unknown.pop(note.input, None)
    return unknown


def _beside(replies: Path) -> Path:
    return replies.with_suffix(".batches.jsonl")


class Batches:
    """One run over a list of requests; see the module.

    Args:
      poll_s: seconds between two polls of a batch.
    """

    def __init__(self, wire: Wire, known: Known, books: Books, poll_s: float) -> None:
        self._wire, self._known, self._books, self._poll_s = wire, known, books, poll_s
        self._client = wire.client.with_options(max_retries=3)
        self._replies, self._budget = books.replies, books.budget
        self._interrupted = asyncio.Event()
        self._reserved: list[Tokens] = []
        self._worst: dict[str, Tokens] = {}  # of each request, by its id

    async def run(self, requests: Callable[[], Iterable[Request]], right: Callable[[Request, Reply], bool]) -> Outcome:
        """Submits, waits and takes in, until nothing is missing or a round brought nothing new.

        Ctrl-C (or SIGTERM) stops the waiting; the batches go on at the endpoint, and a rerun takes them up.

        Raises:
          UserError: the endpoint refuses in a way that another try cannot mend, or a batch failed its validation.
        """
        self._worst = {request.id: budget.worst(request.body) for request in requests()}
        self._rows = Rows(self._wire, self._known, self._books, self._worst)
        stopped = ""
        with (
            Appender(_beside(self._replies.path), Note) as self._notes,
            on_interrupt(self._interrupted.set),
        ):
            await self._find_unnoted()
            await self._take_in()  # what an earlier run submitted
            while not stopped and not self._interrupted.is_set() and self._missing():
                stopped = await self._submit(requests())
                if not await self._take_in() and not self._rows.learnt:
                    break
        if self._interrupted.is_set():
            stopped = "interrupted; the batches go on at the endpoint"
        return self._outcome(requests(), right, stopped)

    def _missing(self) -> int:
        return sum(id not in self._replies.rows for id in self._worst)

    def _outcome(self, requests: Iterable[Request], right: Callable[[Request, Reply], bool], stopped: str) -> Outcome:
        outcome = Outcome(0, failures=self._rows.failures, stopped=stopped)
        for request in requests:
            outcome.total += 1
            if reply := self._replies.rows.get(request.id):
                outcome.answered += 1
                outcome.right += right(request, reply)
        return outcome

    # --- submitting ---------------------------------------------------------------------------------------------------

    async def _submit(self, requests: Iterable[Request]) -> str:
        """Submits what has no answer, as far as the budget has room; returns why not all, or ""."""
        file = self._replies.path.with_suffix(".batch_input.jsonl")
        try:
            for digest, worst in self._write_parts(file, self._affordable(requests)):
                await self._submit_part(file, digest, worst)
        finally:
            file.unlink(missing_ok=True)
        return "" if len(self._reserved) == self._missing() else self._budget.no_room()

    def _affordable(self, requests: Iterable[Request]) -> Iterator[Request]:
        seen: set[str] = set()
        for request in requests:
            if request.id in self._replies.rows or request.id in seen:
                continue
            if not self._budget.reserve(self._worst[request.id]):
                return
            self._reserved.append(self._worst[request.id])
            seen.add(request.id)
            yield request

    def _write_parts(self, path: Path, requests: Iterator[Request]) -> Iterator[tuple[str, Tokens]]:
        """Writes one input file after the other to `path`, within the endpoint's limits; yields sha256 and worst."""
        request, line = self._line(requests)
        while request:
            digest, count, size, worst = hashlib.sha256(), 0, 0, Tokens(0, 0)
            with open(path, "wb") as file:
                while request and count < MOST_REQUESTS and size + len(line) <= MOST_BYTES:
                    file.write(line)
                    digest.update(line)
                    count, size, worst = count + 1, size + len(line), _sum(worst, self._worst[request.id])
                    request, line = self._line(requests)
            if not count:
                raise UserError(f"a request of {len(line):,} bytes is more than a batch may have")
            yield digest.hexdigest(), worst

    def _line(self, requests: Iterator[Request]) -> tuple[Request | None, bytes]:
        """The next request, and it as a line of an input file; None after the last."""
        if (request := next(requests, None)) is None:
            return None, b""
        body = self._known.dialect.body(request.body)
        line = {"custom_id": request.id, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return request, json.dumps(line).encode() + b"\n"

    async def _submit_part(self, path: Path, digest: str, worst: Tokens) -> None:
        import openai

        about = {"input": digest, "base_url": self._wire.url, "worst": worst}
        with self._clear_errors(), open(path, "rb") as file:
            uploaded = await self._client.files.create(file=file, purpose="batch")
            file_id = _named(uploaded, "id")
            self._notes.append(Note(id=f"{_UPLOADING}{len(self._notes.rows)}", **about))
            try:
                # No retries: a batch whose response is lost exists, and the next run finds it by its metadata.
                batch = await self._client.with_options(max_retries=0).batches.create(
                    input_file_id=file_id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={_KEY: digest},
                )
            except openai.APIStatusError as error:
                if error.status_code < 500:  # refused
                    self._note_absent(digest)
                raise
            batch_id = _named(batch, "id")
        self._notes.append(Note(id=_SUBMITTED + batch_id, **about))

    def _note_absent(self, digest: str) -> None:
        self._notes.append(Note(id=f"{_ABSENT}{len(self._notes.rows)}", input=digest))

    async def _find_unnoted(self) -> None:
        """Notes the batches that an earlier run submitted, whose ids it did not get: whatever is asked now."""
        unknown = _unknown(self._notes.rows.values())
        for digest, note in unknown.items():
            self._require_here(note, f"a batch of input {digest}")
        if not unknown:
            return
        seen: set[str] = set()
        with self._clear_errors():
            async for batch in self._client.batches.list(limit=100):
                if batch.id in seen:  # an endpoint that has no pages
                    break
                seen.add(batch.id)
                digest = (batch.metadata or {}).get(_KEY, "")
                if digest in unknown and _SUBMITTED + batch.id not in self._notes.rows:
                    submitted = {"id": _SUBMITTED + _named(batch, "id"), "base_url": self._wire.url}
                    self._notes.append(unknown.pop(digest).model_copy(update=submitted))
                if not unknown:
                    return
        for digest in unknown:
            self._note_absent(digest)

    def _require_here(self, note: Note, what: str) -> None:
        if note.base_url not in ("", self._wire.url):
            raise UserError(
                f"{what} was submitted to {note.base_url}; give that --base_url, or take it out of {self._notes.path}"
            )

    # --- taking in ----------------------------------------------------------------------------------------------------

    async def _take_in(self) -> int:
        """Waits for every batch that was submitted and not taken in; returns the number of new answers."""
        self._rows.start()
        new = 0
        notes = [id.removeprefix(_SUBMITTED) for id in self._notes.rows if id.startswith(_SUBMITTED)]
        for batch_id in (id for id in notes if _TAKEN_IN + id not in self._notes.rows):
            try:
                batch = await self._end_of(batch_id)
                if batch is None:
                    return new
                new += await self._take_in_files(batch)
            except _Gone as gone:
                self._forget(batch_id, str(gone))
                continue
            self._notes.append(Note(id=_TAKEN_IN + batch_id))
            kept = len(self._worst) - self._missing()
            print(f"{kept:,}/{len(self._worst):,} answered · {self._budget.summary() or '$0.00 paid'}", file=sys.stderr)
            if batch.status == "failed":
                said = [str(error.message) for error in (batch.errors and batch.errors.data) or []]
                raise UserError(
                    f"the endpoint did not accept batch {batch_id}: {self._wire.clean('; '.join(said[:3]))}"
                )
        for tokens in self._reserved:
            self._budget.release(tokens)
        self._reserved.clear()
        return new

    async def _take_in_files(self, batch: "Batch") -> int:
        new = 0
        for file_id, succeeded in ((batch.output_file_id, True), (batch.error_file_id, False)):
            if isinstance(file_id, str) and file_id:
                new += self._rows.take(await self._download(file_id), succeeded)
        if not (batch.output_file_id or batch.error_file_id or batch.status == "failed"):
            self._rows.failures[f"batch {batch.id} is {batch.status} and gave no file"] += 1
        return new

    def _forget(self, batch_id: str, why: str) -> None:
        """Books the worst case of a batch whose answers are gone; its requests are submitted again."""
        print(f"{batch_id}: {why}; what it asked is submitted again", file=sys.stderr)
        self._rows.failures[why] += 1
        noted = Tokens(*self._notes.rows[_SUBMITTED + batch_id].worst)
        missing = (worst for id, worst in self._worst.items() if id not in self._replies.rows)
        self._rows.book(noted if any(noted) else functools.reduce(_sum, missing, noted), why, batch_id)
        self._notes.append(Note(id=_TAKEN_IN + batch_id))

    async def _end_of(self, batch_id: str) -> "Batch | None":
        """The batch when it has ended; None when Ctrl-C came first.

        Raises:
          _Gone: the endpoint does not know it any more.
        """
        self._require_here(self._notes.rows[_SUBMITTED + batch_id], f"batch {batch_id}")
        printed = ""
        while not self._interrupted.is_set():
            with self._clear_errors(gone=f"the endpoint has no such batch any more ({self._wire.url} answers 404)"):
                batch = await self._client.batches.retrieve(batch_id)
                status = _named(batch, "status")
                counts = batch.request_counts
                state = f"{status}, {counts.completed or 0:,} of {counts.total or 0:,} answered" if counts else status
            if state != printed:
                print(f"{batch_id}: {self._wire.clean(state)}", file=sys.stderr)
                printed = state
            if status in _ENDED:
                return batch
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._interrupted.wait(), self._poll_s)
        return None

    async def _download(self, file_id: str) -> Path:
        """Downloads an output or error file; returns its path.

        Raises:
          _Gone: the endpoint does not have it any more.
        """
        name = hashlib.sha256(file_id.encode("utf-8", errors="replace")).hexdigest()[:16]
        path = self._replies.path.with_suffix(f".batch-{name}.jsonl")
        if path.exists():
            return path
        with self._clear_errors(gone=f"its output {file_id} is gone ({self._wire.url} answers 404)"):
            async with self._client.files.with_streaming_response.content(file_id) as came:
                with storage.replacing(path) as file:
                    rest = b""
                    async for part in came.iter_bytes():
                        lines, end, rest = (rest + part).rpartition(b"\n")
                        file.write(self._wire.without_key_in(lines + end))
                    file.write(self._wire.without_key_in(rest))
        return path

    @contextlib.contextmanager
    def _clear_errors(self, gone: str = "") -> Iterator[None]:
        """Turns errors of the endpoint into UserError, or a 404 into `_Gone` where `gone` says what that means."""
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            if gone and error.status_code == 404:
                raise _Gone(gone) from None
            raise self._refusal(error) from None
        except (
            _NoBatchAPI,
            AttributeError,
            TypeError,
            ValueError,
            RecursionError,
        ) as error:  # the endpoint sent no such object
            said = error if isinstance(error, _NoBatchAPI) else "its answer is none of that API"
            raise UserError(
                f"{self._wire.url} has no Batch API ({said}); leave --batch out, or see --base_url"
            ) from None
        except Exception as error:
            if not isinstance(error, openai.APIConnectionError) and not is_http_error(error):
                raise
            raise UserError(f"{self._wire.url}: {broken(error)}. The same command goes on from here.") from None

    def _refusal(self, error: "openai.APIStatusError") -> UserError:
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        failure = response.read(error.status_code, headers, error.response.content)
        assert isinstance(failure, Failure)
        if error.status_code in (404, 405, 501):
            said = self._wire.clean(failure.said)
            return UserError(f"{self._wire.url} has no Batch API ({said}); leave --batch out, or see --base_url")
        return self._wire.refusal(failure)


class _Gone(Exception):
    """The endpoint no longer has a batch or a file."""


class _NoBatchAPI(Exception):
    """A response does not follow the Batch API."""


def _named(value: Any, field: str) -> str:
    """A field of an object of the API.

    Raises:
      _NoBatchAPI: it is none, or has no such field.
    """
    found = getattr(value, field, None)
    if not isinstance(found, str) or not found or not found.isprintable():
        raise _NoBatchAPI(f"its answer has no {field}")
    return found


def _sum(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(one.prompt + other.prompt, one.completion + other.completion)
