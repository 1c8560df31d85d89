"""A chat endpoint as the stages ask it: its options, and the two ways to ask, one by one or in batches."""

import asyncio
import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lema_jax import records, stage
from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.stage import option
from lema_jax.teacher import batch, budget, losses, raw_responses
from lema_jax.teacher.budget import Budget, Price, Tokens
from lema_jax.teacher.chat import Outcome, Paid, Reply, Request
from lema_jax.teacher.client import Asking, Books, Known
from lema_jax.teacher.losses import Losses
from lema_jax.teacher.pace import Pace
from lema_jax.teacher.raw_responses import RawResponse
from lema_jax.teacher.wire import Dialect, Wire, address

_START = 4  # requests in flight at first, where no price is known: a local server decodes few at a time


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A chat endpoint: where it is, how fast to ask, what it may cost.

    Raises:
      UserError: an address that nothing can be sent to, or a number out of its range.
    """

    base_url: str | None = option(None, "Address of an OpenAI-compatible endpoint; OpenAI's own if not given.")
    concurrency: int = option(
        32,
        f"The most requests in flight; {_START} at first where no price is known, fewer after time-outs and refusals.",
        low=1,
    )
    requests_per_minute: float = option(math.inf, "The most requests to start in a minute.", low=1e-3, also=[math.inf])
    tokens_per_minute: float = option(
        math.inf, "The most tokens, sent and received, in a minute.", low=1e-3, also=[math.inf]
    )
    timeout_s: float = option(
        300.0,
        "Seconds to wait for an answer; a request that has none is sent twice more, each time with twice as long.",
        low=1e-3,
    )
    max_cost_usd: float = option(
        math.inf, "The most US dollars to spend, earlier runs on the same file included.", low=0, also=[math.inf]
    )
    max_tokens_total: float = option(
        math.inf, "The most tokens to use, earlier runs on the same file included.", low=0, also=[math.inf]
    )
    usd_per_million: Sequence[str] = option(
        (), f"Prices in US dollars of a million tokens, PROMPT,COMPLETION; by default the list of {budget.LISTED}."
    )
    release_bookings: bool = option(
        False,
        "Count no more what earlier requests without an answer may have cost at most: the bill says they cost nothing.",
    )
    batch: bool = option(False, "Use the Batch API: half the price, answers within a day.")
    batch_poll_s: float = option(30.0, "Seconds between two looks at a batch.", low=1e-3)
    _known: Known = dataclasses.field(init=False, repr=False, compare=False)  # learnt while asking
    _released: set[Path] = dataclasses.field(init=False, repr=False, compare=False, default_factory=set)

    def __post_init__(self) -> None:
        stage.require(self)
        budget.price("", self.usd_per_million)
        object.__setattr__(self, "_known", Known(Dialect(address(self.base_url))))

    def ask(
        self,
        requests: Callable[[], Iterable[Request]],
        replies: Appender[Reply],
        right: Callable[[Request, Reply], bool],
    ) -> Outcome:
        """Asks for every request that `replies` has no answer to, and appends the answers to it.

        Args:
          requests: gives the requests, once a call; they are rendered as they are needed, never all at once in memory.
          replies: the file of answers; a rerun asks for none of them again.
          right: whether an answer is right, for the progress line.

        Raises:
          UserError: no key, a limit in USD without a price, or an answer of the endpoint that only the user can mend.
          OSError: the disk is full, say; names the file. What was in flight stays booked.
        """
        total, model, missing = 0, "", []
        for request in requests():
            total, model = total + 1, request.body["model"]
            if request.id not in replies.rows:
                missing.append(budget.lost(request.body, self.price(model)))
            elif not self._known.answered:
                self._known.answered = replies.rows[request.id].completion_tokens > 0
        if not missing and not self.batch:
            return Outcome(total, total, sum(right(request, replies.rows[request.id]) for request in requests()))
        if not self.batch and (open_ := batch.pending(replies.path)):
            raise UserError(
                f"{len(open_)} batches of an earlier run ({', '.join(open_[:3])}) may be paid for and are not taken in;"
                f" give --batch, or remove {replies.path.with_suffix('.batches.jsonl')} to ask again"
            )
        price, wire = self._budget(model).price, self.connect()  # errors of the user come before any file is made
        in_flight = budget.most(missing, 0 if self.batch else self.concurrency)
        with (
            Losses(replies.path, price) as lost,
            Appender(raw_responses.beside(replies.path), RawResponse) as raw,
        ):
            if self.release_bookings and replies.path not in self._released:  # once: later ones are of this run
                print(f"{lost.release():,} tokens that were only booked count no more", file=sys.stderr)
                self._released.add(replies.path)
            spending = self._budget(model, replies.rows.values(), lost.counting())
            books = Books(replies, raw, lost, spending)
            with lost.in_flight(in_flight):
                return asyncio.run(self._ask(wire, requests, total, books, right))

    async def _ask(
        self,
        wire: Wire,
        requests: Callable[[], Iterable[Request]],
        total: int,
        books: Books,
        right: Callable[[Request, Reply], bool],
    ) -> Outcome:
        async with wire:
            if self.batch:
                return await batch.Batches(wire, self._known, books, self.batch_poll_s).run(requests, right)
            start = None if books.budget.price else _START
            pace = Pace(self.concurrency, self.requests_per_minute, self.tokens_per_minute, start)
            asking = Asking(wire, self._known, requests(), total, books, pace, right)
            return await asking.run(min(self.concurrency, total))

    def connect(self) -> Wire:
        """The connection to the endpoint.

        Raises:
          UserError: OpenAI's own endpoint without a key in the environment; others may need none.
        """
        return Wire(self.base_url, self.timeout_s)

    def estimate(self, requests: Iterable[Request], replies: Path) -> str:
        """The requests, tokens and US dollars that asking would take, as text; asks nothing and writes nothing."""
        kept = lambda: records.read(replies, Reply, growing=True) if replies.exists() else iter(())
        ids = {reply.id for reply in kept()}
        count, answered, tokens, model = 0, 0, Tokens(0, 0), ""
        for request in requests:
            model = request.body["model"]
            if request.id in ids:
                answered += 1
                continue
            count += 1
            likely = budget.likely(request.body)
            tokens = Tokens(tokens.prompt + likely.prompt, tokens.completion + likely.completion)
        lost = (row for row in losses.read(replies) if not (row.bound and self.release_bookings))
        spending, price = self._budget(model, kept(), lost), self.price(model)
        usd = price.of(tokens) if price else 0.0
        lines = [
            f"{count:,} requests to ask ({answered:,} are answered already): about {tokens.prompt:,} prompt tokens and"
            f" at most {tokens.completion:,} completion tokens"
        ]
        if price is None:
            lines.append(f"what {model} costs is not known; give --usd_per_million=prompt,completion")
        else:
            source = "--usd_per_million" if self.usd_per_million else f"list of {budget.LISTED}"
            halved = ", halved by --batch" if self.batch else ""
            spent = f", beside {paid}" if (paid := spending.summary()) else ""
            each = f"${price.prompt:g} and ${price.completion:g} a million ({source}{halved})"
            lines.append(f"at {each}: at most about ${usd:,.2f}{spent}")
        if spending.spent_usd + usd > self.max_cost_usd:
            lines.append(f"--max_cost_usd={self.max_cost_usd:g} may end it before the last request")
        if spending.spent_tokens + sum(tokens) > self.max_tokens_total:
            lines.append(f"--max_tokens_total={self.max_tokens_total:,.0f} may end it before the last request")
        return "\n".join(lines)

    def price(self, model: str) -> Price | None:
        """Of the model's tokens, the way they are asked for; None when it is not known."""
        listed = budget.price(model, self.usd_per_million)
        if listed and self.batch:
            return Price(*(usd * budget.BATCH_DISCOUNT for usd in listed))
        return listed

    def _budget(self, model: str, *earlier: Iterable[Paid]) -> Budget:
        """The limits, and what earlier runs have spent of them."""
        spending = Budget(self.price(model), self.max_cost_usd, self.max_tokens_total)
        for paid in itertools.chain(*earlier):
            spending.spend(paid.tokens, paid.cost_usd, booked=paid.bound)
        return spending


def replies_of(out: str | Path) -> Path:
    """The file beside a stage's output that keeps the answers: `corrections.jsonl` -> `corrections.replies.jsonl`."""
    return Path(out).with_suffix(".replies.jsonl")
