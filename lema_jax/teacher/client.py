"""Asks a chat endpoint many questions at once, and keeps every answer.

A response is on the disk before it is parsed, and an answer before it is counted: a killed run pays again only for what
was in flight, and the budget counts that too (see `losses`). Server errors, time-outs and broken connections are tried
again, with growing and jittered waits and fewer requests at once; what concerns one request (it is too long, it is
filtered) is that request's own failure; what another try cannot mend (a bad key, an unknown model, an address where
no server listens) ends the run with one clear error, after the requests in flight have ended.
"""

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator

from lema_jax import interrupts
from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import budget, chat, raw_responses, response
from lema_jax.teacher.budget import Budget, Tokens
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.losses import Losses
from lema_jax.teacher.pace import Pace
from lema_jax.teacher.progress import Progress
from lema_jax.teacher.raw_responses import GroupCommit, RawResponse
from lema_jax.teacher.response import Answer, Failure, Kind
from lema_jax.teacher.wire import Broken, Dialect, Wire

_TRIES = 8
_PAID_TRIES = 3  # of those that may be billed without an answer, such as time-outs
_UNREACHED = 3  # tries to connect before the first answer
_LONGEST_WAIT = 60.0  # seconds between tries, unless the endpoint asks for more
_FRUITLESS = 8  # requests in a row without an answer: then the endpoint is at fault, not a request
_FILTERED = 32  # likewise, where answers came before: questions on one subject may be filtered in a row


class _Retry(Exception):
    """A try failed, and another try may succeed."""

    def __init__(
        self,
        reason: str,
        *,
        after: float | None = None,
        paid: Tokens | None = None,
        overloaded: bool = False,
        late: bool = False,
        unreached: bool = False,
    ) -> None:
        super().__init__(reason)
        self.after = after  # seconds that the endpoint asks to wait
        self.paid = paid  # tokens that the endpoint may bill although it did not answer
        self.overloaded = overloaded  # fewer requests in flight may do better
        self.late = late  # it timed out
        self.unreached = unreached  # no connection was made


@dataclasses.dataclass(frozen=True)
class Books:
    """The files and the budget of a run: replies, raw responses, losses."""

    replies: Appender[Reply]
    raw: Appender[RawResponse]
    losses: Losses
    budget: Budget


@dataclasses.dataclass
class Known:
    """What was learnt about an endpoint from its responses."""

    dialect: Dialect
    answered: bool = False  # whether it has answered any request; a rejection is then about the request


class Asking:
    """One run over a list of requests.

    Args:
      requests: drawn from as they start, so they may be more than fit into memory; those in `books` are skipped.
      total: how many there are.
      right: says of an answer whether it is right, for the progress line.
    """

    def __init__(
        self,
        wire: Wire,
        known: Known,
        requests: Iterable[Request],
        total: int,
        books: Books,
        pace: Pace,
        right: Callable[[Request, Reply], bool],
    ) -> None:
        self._wire, self._known, self._requests, self._books = wire, known, iter(requests), books
        self._pace, self._right, self._budget = pace, right, books.budget
        self._replies, self._raw = GroupCommit(books.replies), GroupCommit(books.raw)
        self._outcome = Outcome(total)
        self._progress = Progress(self._outcome, self._budget, wire.url)
        self._asking: set[str] = set()
        self._workers: list[asyncio.Task[None]] = []
        self._in_flight: set[asyncio.Task[None]] = set()  # those that wait for the endpoint or for the disk
        self._room, self._landed = asyncio.Event(), asyncio.Event()
        self._fruitless = 0
        self._doubtful: list[tuple[Request, Failure]] = []  # rejected since the last answer

    async def run(self, concurrency: int) -> Outcome:
        """Asks until all is answered or something ends it (see `Outcome.stopped`).

        The first Ctrl-C (or SIGTERM) starts no more requests and waits for those in flight; a second one ends at once.

        Raises:
          UserError: what no other try can mend; answers that were in flight are kept before it is raised.
          OSError: the disk is full, say; answers that came then are lost.
        """
        self._workers = [asyncio.create_task(self._work()) for _ in range(concurrency)]
        with on_interrupt(lambda: self._stop("interrupted")), self._progress:
            ended = await asyncio.gather(*self._workers, return_exceptions=True)
            errors = [one for one in ended if isinstance(one, BaseException)]
            if errors := [error for error in errors if not isinstance(error, asyncio.CancelledError)]:
                raise min(errors, key=lambda error: isinstance(error, UserError))  # an answer may be lost by the others
            self._refuse_all_rejected()
            if not self._outcome.stopped:
                await self._settle_doubts()
        return self._outcome

    def _stop(self, why: str) -> None:
        """Starts no more requests; those in flight end."""
        self._outcome.stopped = self._outcome.stopped or why
        for worker in self._workers:
            if worker not in self._in_flight:
                worker.cancel()

    async def _work(self) -> None:
        try:
            for request in self._requests:  # one iterator for all workers
                if request.id in self._books.replies.rows:
                    self._count(request, self._books.replies.rows[request.id])
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
        if await self._read_earlier(request, worst):
            return
        reason, paid, late, limit_s = "", 0, False, self._wire.timeout_s
        for number in range(_TRIES):
            if not await self._reserve(worst):
                return
            try:
                await self._try(request, worst, expected, limit_s)
                return
            except _Retry as failure:
                reason, wait, late = str(failure), failure.after, failure.late
                paid += failure.paid is not None
                if late:
                    reason = f"{reason} (--timeout_s={self._wire.timeout_s:g}, doubled at each try)"
                    limit_s, wait = 2 * limit_s, 0.0
                if failure.unreached and not self._progress.new and number + 1 >= _UNREACHED:
                    raise UserError(f"{self._wire.url}: {reason}; nothing was asked; see --base_url") from None
                self._progress.failed(reason)
            finally:
                self._budget.release(worst)
                self._room.set()
            if self._outcome.stopped or paid >= _PAID_TRIES:
                break
            await asyncio.sleep(_backoff(number) if wait is None else wait * random.uniform(1, 1.25))
        self._outcome.failures[reason] += 1
        self._fruitless += 1
        if late and not self._progress.new:
            self._stop(f"{self._wire.url}: {reason}; raise it, or lower --max_tokens or --concurrency")
        if self._fruitless >= _FRUITLESS:
            self._stop(f"{_FRUITLESS} requests in a row without an answer; the last from {self._wire.url}: {reason}")

    async def _reserve(self, worst: Tokens) -> bool:
        """Waits until the budget has room for the request; False when it never will."""
        while not self._budget.reserve(worst):
            if not self._budget.reservations:
                self._stop(self._budget.no_room())
                return False
            self._room.clear()
            await self._room.wait()
        return True

    async def _try(self, request: Request, worst: Tokens, expected: int, limit_s: float) -> None:
        started = await self._pace.enter(expected)
        while self._rejected_from_the_start():  # while it waited for its turn
            self._pace.leave(expected, 0, answered=False)
            await self._while_doubtful()
            started = await self._pace.enter(expected)
        used, failure = expected, None
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.add(task)
        self._progress.in_flight += 1
        try:
            used = await self._settle(request, await self._send(request, limit_s), worst)
        except _Retry as error:
            failure = error
            if error.paid is not None:
                self._book(error.paid, str(error))
            raise
        finally:
            self._in_flight.discard(task)
            self._progress.in_flight -= 1
            self._landed.set()
            if failure and failure.overloaded:
                self._pace.refuse(started, failure.after or (0.0 if failure.paid else _backoff(0)))
            else:
                self._pace.leave(expected, used, answered=failure is None)

    def _book(self, tokens: Tokens, reason: str, *, bound: bool = True) -> None:
        self._budget.spend(tokens, booked=bound)
        self._books.losses.add(tokens, self._wire.clean(reason), bound=bound)

    async def _send(self, request: Request, limit_s: float) -> Answer | Failure:
        """The judgement of a response, which is on the disk by then where it may have been billed."""
        while True:
            body = self._known.dialect.body(request.body)
            try:
                came = await self._wire.post(body, limit_s)
            except Broken as error:
                if error.hopeless and not self._progress.new:
                    raise UserError(f"{self._wire.url}: {error}; nothing was asked") from None
                paid = budget.lost(request.body, self._budget.price) if error.sent else None
                raise _Retry(
                    self._wire.clean(str(error)), paid=paid, overloaded=error.sent, late=error.late,
                    unreached=not error.sent,
                ) from None  # fmt: skip
            if came.status == 200:
                text = came.body.decode("utf-8", errors="replace")
                id = raw_responses.next_id(self._books.raw, request.id)
                await self._raw.append(RawResponse(id=id, body=text))
            judged = response.read(came.status, came.headers, came.body)
            if isinstance(judged, Answer) or not self._known.dialect.learn(judged.parameters, body):
                return judged

    async def _settle(self, request: Request, judged: Answer | Failure, worst: Tokens) -> int:
        """Writes an answer or a permanent failure of the request; returns the tokens that were used.

        Raises:
          _Retry: another try may do better.
          UserError: only the user can mend it.
        """
        if isinstance(judged, Answer):
            reply = chat.reply(request.id, judged, worst, self._budget.price)
            await self._keep(request, reply)
            self._known.answered, self._fruitless = True, 0
            await self._settle_doubts()
            if judged.model and judged.model != request.body["model"]:
                self._progress.say_once(
                    f"{request.body['model']} was asked for; {self._wire.clean(judged.model)} answers"
                )
            self._progress.new += 1
            self._progress.tokens += sum(reply.tokens)
            return sum(reply.tokens)
        by_words = judged.status != 200 and judged.finish == "content_filter"  # which may be about the account
        if judged.kind is Kind.PERMANENT and self._known.answered and not by_words:
            await self._keep(request, chat.unanswered(request.id, judged, self._budget.price))
        elif judged.kind in (Kind.PERMANENT, Kind.REJECTED, Kind.PARAMETER):
            self._doubtful.append((request, judged))
            filtered = self._known.answered and all(failure.kind is Kind.PERMANENT for _, failure in self._doubtful)
            if len(self._doubtful) >= (_FILTERED if filtered else _FRUITLESS):
                raise self._wire.refusal(judged, f"{len(self._doubtful)} requests in a row")
        elif judged.kind in (Kind.TRANSIENT, Kind.OVERLOADED) or (judged.kind is Kind.NO_API and self._known.answered):
            raise _Retry(
                self._wire.clean(judged.said), after=judged.after, paid=self._cost(request, judged),
                # before the first answer a 503 says that the server is not up yet
                overloaded=judged.kind is Kind.OVERLOADED and (self._known.answered or judged.status != 503),
            )  # fmt: skip
        else:
            if paid := self._cost(request, judged):
                self._book(paid, judged.said)
            raise self._wire.refusal(judged)
        return 0

    def _cost(self, request: Request, failure: Failure) -> Tokens | None:
        """Counts the tokens that a failure reports; returns what may be billed where it reports none."""
        lost = budget.lost(request.body, self._budget.price) if failure.billed else None
        if failure.usage == (None, None):
            return lost
        tokens = chat.counted(failure.usage, lost or Tokens(0, 0))
        self._book(tokens, failure.said, bound=lost is not None and tokens != failure.usage)
        return None

    async def _keep(self, request: Request, reply: Reply) -> None:
        self._budget.spend(reply.tokens, reply.cost_usd, booked=reply.bound)
        await self._replies.append(reply)
        self._count(request, reply)

    async def _read_earlier(self, request: Request, worst: Tokens) -> bool:
        """Whether an earlier, killed run had received an answer; it is parsed and written now."""
        earlier = raw_responses.last(self._books.raw, request.id)
        judged = response.read(200, {}, earlier.body.encode()) if earlier else None
        if isinstance(judged, Answer):
            await self._keep(request, chat.reply(request.id, judged, worst, self._budget.price))
            return True
        return False

    # --- rejected: the request may be at fault, or the set-up, or the account ----------------------------------------

    async def _while_doubtful(self) -> None:
        """While the set-up may be at fault for a rejection, waits for the requests in flight.

        Raises:
          UserError: all of that was rejected too.
        """
        while self._rejected_from_the_start() and self._in_flight:
            self._landed.clear()
            await self._landed.wait()
        self._refuse_all_rejected()

    def _rejected_from_the_start(self) -> bool:
        return not self._known.answered and any(failure.kind is not Kind.PERMANENT for _, failure in self._doubtful)

    def _refuse_all_rejected(self) -> None:
        if self._rejected_from_the_start():
            raise self._wire.refusal(
                next(failure for _, failure in self._doubtful if failure.kind is not Kind.PERMANENT)
            )

    async def _settle_doubts(self) -> None:
        """Writes them as permanent failures of their requests, since another request was answered or none is left."""
        doubtful, self._doubtful = self._doubtful, []
        for request, failure in doubtful:
            await self._keep(request, chat.unanswered(request.id, failure, self._budget.price))
            self._progress.failed(self._wire.clean(failure.said))


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
