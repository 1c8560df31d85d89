"""The flags of every door that asks a chat endpoint, and the two ways to ask it."""

import asyncio
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import batch, budget, losses
from lema_jax.teacher.budget import Budget, Price, Tokens
from lema_jax.teacher.chat import Outcome, Paid, Reply, Request
from lema_jax.teacher.client import Asking
from lema_jax.teacher.losses import Losses
from lema_jax.teacher.pace import Pace

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where to ask, how fast, and what it may cost."""

    base_url: str | None = None  # None: OpenAI's own
    concurrency: int = 32
    requests_per_minute: float = math.inf
    tokens_per_minute: float = math.inf
    timeout_s: float = 300.0
    max_cost_usd: float = math.inf  # this and the next count what earlier runs spent too, or may have
    max_tokens_total: float = math.inf
    usd_per_million: tuple[str, ...] = ()
    batch: bool = False
    batch_poll_s: float = 30.0

    def ask(
        self,
        requests: Callable[[], Iterable[Request]],
        replies: Appender[Reply],
        right: Callable[[Request, Reply], bool],
    ) -> Outcome:
        """Asks for every request that `replies` has no answer to, and keeps the answers there.

        Args:
          requests: gives the requests anew each time; rendered as they are needed, never all at once in memory.
          replies: where answers are kept; the file that also makes a rerun pay nothing twice.
          right: whether an answer is right, for the progress line.

        Raises:
          UserError: no key, a limit in USD without a price, or an answer of the endpoint that only the user can mend.
        """
        total, missing, model, worst = 0, 0, "", Tokens(0, 0)
        for request in requests():
            total, model = total + 1, request.body["model"]
            if request.id not in replies.rows:
                missing, worst = missing + 1, budget.largest(worst, budget.worst(request.body))
        if not total:
            return Outcome(0)
        at_once = min(self.concurrency, missing)
        in_flight = Tokens(at_once * worst.prompt, at_once * worst.completion)
        spending = self._budget(model, replies.rows.values(), losses.read(replies.path))
        return asyncio.run(self._ask(requests, total, in_flight, replies, spending, right))

    async def _ask(
        self,
        requests: Callable[[], Iterable[Request]],
        total: int,
        in_flight: Tokens,
        replies: Appender[Reply],
        spending: Budget,
        right: Callable[[Request, Reply], bool],
    ) -> Outcome:
        async with self.connect() as client:
            if self.batch:
                return await batch.Batches(client, replies, spending, self.batch_poll_s).run(requests, right)
            pace = Pace(self.concurrency, self.requests_per_minute, self.tokens_per_minute)
            with Losses(replies.path, spending.price) as lost, lost.in_flight(in_flight):
                asking = Asking(client, requests(), total, replies, lost, spending, pace, right)
                return await asking.run(min(self.concurrency, total))

    def connect(self) -> "AsyncOpenAI":
        """The official client, its own retries off.

        Raises:
          UserError: OpenAI's own endpoint without a key in the environment; others may need none.
        """
        import openai

        key = os.environ.get("OPENAI_API_KEY")
        if not key and not self.base_url and "OPENAI_BASE_URL" not in os.environ:
            raise UserError("no key: set OPENAI_API_KEY, or give --base_url of an endpoint that needs none")
        return openai.AsyncOpenAI(api_key=key or "none", base_url=self.base_url, max_retries=0, timeout=self.timeout_s)

    def estimate(self, requests: Iterable[Request], replies: Path) -> str:
        """What asking would take, in words; nothing is asked and nothing written."""
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
        spending, price = self._budget(model, kept(), losses.read(replies)), self.price(model)
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
            spent = f", beside ${spending.spent_usd:,.2f} that are spent" if spending.spent_usd else ""
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
            spending.spend(paid.tokens, paid.cost_usd)
        return spending


def replies_of(out: str | Path) -> Path:
    """The file beside a door's output that keeps the answers: `corrections.jsonl` -> `corrections.replies.jsonl`."""
    return Path(out).with_suffix(".replies.jsonl")


def define_flags() -> Callable[[], Endpoint]:
    """Defines the flags of `Endpoint` for the door that calls it; returns what reads them after parsing."""
    flags.disclaim_key_flags()  # they are the door's
    usual = Endpoint()
    base_url = flags.DEFINE_string("base_url", None, "an OpenAI-compatible endpoint; OpenAI's own if not given")
    concurrency = flags.DEFINE_integer("concurrency", usual.concurrency, "the most requests in flight", lower_bound=1)
    requests = flags.DEFINE_float(
        "requests_per_minute", usual.requests_per_minute, "the most requests to start in a minute", lower_bound=1e-3
    )
    tokens = flags.DEFINE_float(
        "tokens_per_minute",
        usual.tokens_per_minute,
        "the most tokens, sent and received, in a minute",
        lower_bound=1e-3,
    )
    timeout = flags.DEFINE_float(
        "timeout_s", usual.timeout_s, "seconds after which a request is tried again", lower_bound=1e-3
    )
    usd = flags.DEFINE_float("max_cost_usd", usual.max_cost_usd, "spend no more, earlier runs included", lower_bound=0)
    total = flags.DEFINE_float(
        "max_tokens_total", usual.max_tokens_total, "use no more tokens, likewise", lower_bound=0
    )
    prices = flags.DEFINE_list(
        "usd_per_million", [], f"prices of a million tokens, prompt,completion; else our list of {budget.LISTED}"
    )
    batched = flags.DEFINE_bool("batch", usual.batch, "use the Batch API: half those prices, within a day")
    poll = flags.DEFINE_float("batch_poll_s", usual.batch_poll_s, "seconds between looks at a batch", lower_bound=1e-3)
    return lambda: Endpoint(
        base_url=base_url.value,
        concurrency=concurrency.value,
        requests_per_minute=requests.value,
        tokens_per_minute=tokens.value,
        timeout_s=timeout.value,
        max_cost_usd=usd.value,
        max_tokens_total=total.value,
        usd_per_million=tuple(prices.value),
        batch=batched.value,
        batch_poll_s=poll.value,
    )
