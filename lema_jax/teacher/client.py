"""Asks a chat endpoint many questions at once, and keeps every answer.

An answer is on the disk before it counts, so a killed run pays again only for what was in flight, and the budget counts
that too (see `losses`). Refusals, server
errors, time-outs and broken connections are tried again, with growing and jittered waits; what another try cannot mend
(a bad key, an unknown model, a malformed request) ends the run with one clear error after the rest has landed.
"""

import asyncio
import contextlib
import email.utils
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from lema_jax import interrupts
from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import budget, chat
from lema_jax.teacher.budget import Budget, Tokens
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.losses import Losses
from lema_jax.teacher.pace import Pace
from lema_jax.teacher.progress import Progress

if TYPE_CHECKING:
    import openai  # imported where it is used: a run without an endpoint starts without it
    from openai import AsyncOpenAI

NO_ROOM = "the budget has no room for another request; raise --max_cost_usd or --max_tokens_total"
_TRIES = 8
_LONGEST_WAIT = 60.0  # seconds between tries, unless the endpoint asks for more
_TOO_LONG_TO_WAIT = 900.0  # an endpoint that asks for more is out of quota
_FRUITLESS = 8  # requests in a row that ran out of tries: the endpoint is down


class _TryAgain(Exception):
    """A try failed in a way that another may not. `paid`: the endpoint may bill it all the same."""

    def __init__(self, reason: str, *, after: float | None = None, refused: bool = False, paid: bool = False):
        super().__init__(reason)
        self.after, self.refused, self.paid = after, refused, paid


class Asking:
    """One run over a list of requests.

    Args:
      client: an `AsyncOpenAI` that does not retry by itself; how to try again is decided here.
      requests: drawn from as they start, so they may be more than fit into memory; those in `replies` are skipped.
      total: how many there are.
      replies: where answers are kept.
      losses: where tries are noted that may be paid for without one.
      right: says of an answer whether it is right, for the progress line.
    """

    def __init__(
        self,
        client: "AsyncOpenAI",
        requests: Iterable[Request],
        total: int,
        replies: Appender[Reply],
        losses: Losses,
        spending: Budget,
        pace: Pace,
        right: Callable[[Request, Reply], bool],
    ):
        self._client, self._requests, self._replies = client, iter(requests), replies
        self._losses, self._budget, self._pace, self._right = losses, spending, pace, right
        self._outcome = Outcome(total)
        self._progress = Progress(self._outcome, spending)
        self._asking: set[str] = set()
        self._workers: list[asyncio.Task[None]] = []
        self._in_flight: set[asyncio.Task[None]] = set()  # those that wait for the endpoint or for the disk
        self._room = asyncio.Event()
        self._disk = asyncio.Lock()
        self._unsaved: list[Reply] = []
        self._fruitless = 0

    async def run(self, concurrency: int) -> Outcome:
        """Asks until all is answered or something ends it (see `Outcome.stopped`).

        The first Ctrl-C (or SIGTERM) starts no more requests and waits for those in flight; a second one ends at once.

        Raises:
          UserError: what no other try can mend; answers that were in flight are kept before it is raised.
        """
        self._workers = [asyncio.create_task(self._work()) for _ in range(concurrency)]
        with on_interrupt(lambda: self._stop("interrupted")), self._progress:
            ended = await asyncio.gather(*self._workers, return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error
        return self._outcome

    def _stop(self, why: str) -> None:
        """Lets what is in flight land and starts nothing else."""
        self._outcome.stopped = self._outcome.stopped or why
        for worker in self._workers:
            if worker not in self._in_flight:
                worker.cancel()

    async def _work(self) -> None:
        try:
            for request in self._requests:  # one iterator for all workers
                if request.id in self._replies.rows:
                    self._count(request, self._replies.rows[request.id])
                elif request.id in self._asking:  # by another worker: the same question twice
                    self._outcome.total -= 1
                else:
                    self._asking.add(request.id)
                    await self._ask(request)
                    self._asking.remove(request.id)
                if self._outcome.stopped:
                    return
        except Exception as error:
            self._stop(str(error))
            raise

    def _count(self, request: Request, reply: Reply) -> None:
        self._outcome.answered += 1
        self._outcome.right += self._right(request, reply)

    async def _ask(self, request: Request) -> None:
        """Tries until there is an answer, kept and counted, or no try is left."""
        worst, expected = budget.worst(request.body), sum(budget.likely(request.body))
        reason = ""
        for number in range(_TRIES):
            if not await self._hold(worst):
                return
            try:
                reply = await self._try(request, worst, expected)
                self._fruitless = 0
                self._count(request, reply)
                self._progress.new += 1
                self._progress.tokens += sum(reply.tokens)
                return
            except _TryAgain as failure:
                reason, wait = str(failure), failure.after
            finally:
                self._budget.release(worst)
                self._room.set()
            if self._outcome.stopped:
                break
            await asyncio.sleep(_backoff(number) if wait is None else wait * random.uniform(1, 1.25))
        self._outcome.failures[reason] += 1
        self._fruitless += 1
        if self._fruitless >= _FRUITLESS:
            self._stop(f"{_FRUITLESS} requests in a row without an answer in {_TRIES} tries; the last: {reason}")

    async def _hold(self, worst: Tokens) -> bool:
        """Waits until the budget has room for the request; False when it never will."""
        while not self._budget.hold(worst):
            if not self._budget.holds:
                self._stop(NO_ROOM)
                return False
            self._room.clear()
            await self._room.wait()
        return True

    async def _try(self, request: Request, worst: Tokens, expected: int) -> Reply:
        started = await self._pace.enter(expected)
        used, failure = expected, None
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.add(task)
        try:
            reply = await self._send(request, worst)
            used = sum(reply.tokens)
            self._budget.spend(reply.tokens, reply.cost_usd)
            await self._keep(reply)
            return reply
        except _TryAgain as error:
            failure = error
            if error.paid:
                self._budget.spend(worst)
                self._losses.add(worst)
            raise
        finally:
            self._in_flight.discard(task)
            if failure and failure.refused:
                self._pace.refuse(started, failure.after or _backoff(0))
            else:
                self._pace.leave(expected, used)

    async def _send(self, request: Request, worst: Tokens) -> Reply:
        import openai

        try:
            body = chat.wire(request.body, self._client)
            text = await self._client.post("/chat/completions", body=body, cast_to=str)
            return chat.read_completion(request.id, json.loads(text), worst, self._budget.price)
        except openai.APIStatusError as error:
            if finish := chat.unanswerable(error.status_code, error.body):
                return chat.unanswered(request.id, finish)
            raise _again_or_never(error, self._client) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__  # the HTTP library's own class, whichever it is
            raise _TryAgain(f"no connection ({cause})", paid=not cause.startswith("Connect")) from None
        except ValueError as error:
            raise _TryAgain(f"a malformed answer: {error}"[:100], paid=True) from None

    async def _keep(self, reply: Reply) -> None:
        """Returns when the reply is on the disk. Whoever comes first saves for all who wait behind it."""
        self._unsaved.append(reply)
        async with self._disk:
            rows, self._unsaved = self._unsaved, []
            if rows:
                try:
                    await asyncio.to_thread(self._replies.append, *rows)
                except OSError as error:
                    raise UserError(f"cannot write {self._replies.path}: {error.strerror}") from None


def refusal(error: "openai.APIStatusError", client: "AsyncOpenAI") -> UserError:
    """The error of an endpoint in clear words, without the key, and what to look at."""
    said = error.message.replace(client.api_key, "[key]")[:500]
    return UserError(f"{client.base_url} answers: {said}{_REMEDIES.get(error.status_code, '')}")


def _again_or_never(error: "openai.APIStatusError", client: "AsyncOpenAI") -> Exception:
    """What an error status means: a `_TryAgain` for a passing trouble, a `UserError` for what users must mend."""
    status, after = error.status_code, _retry_after(error.response.headers)
    passing = status in (408, 409, 429) or status >= 500
    if passing and error.code != "insufficient_quota" and (after or 0) <= _TOO_LONG_TO_WAIT:
        return _TryAgain(f"status {status}", after=after, refused=status == 429)
    return refusal(error, client)


_REMEDIES = {
    400: "; see --model, --max_tokens, --temperature",
    401: "; see OPENAI_API_KEY",
    403: "; see OPENAI_API_KEY",
    404: "; see --model and --base_url",
    429: "; see the quota of this account",
}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a response asks to wait, given as milliseconds, seconds or a date."""
    if (milliseconds := _float(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    if (seconds := _float(given)) is not None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given or "").timestamp() - time.time())
    except ValueError:
        return None


def _float(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def _backoff(number: int) -> float:
    """Seconds to wait after try `number`, from 0: doubled each time, jittered, so that not all come back at once."""
    return min(_LONGEST_WAIT, 2.0**number) * random.uniform(0.5, 1)


@contextlib.contextmanager
def on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Within it, the first Ctrl-C or SIGTERM calls `stop` in the running loop, and the next one ends the process."""
    loop = asyncio.get_running_loop()
    saying = "stopping: waiting for the answers in flight (again to end at once)"
    with interrupts.heeded(lambda _: loop.call_soon_threadsafe(stop), saying):
        yield
