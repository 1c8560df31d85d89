"""What requests cost, and a budget that is never exceeded."""

import heapq
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from lema_jax.errors import UserError

LISTED = "April 2026"  # when the prices below were those of OpenAI's public list; --usd_per_million overrides them
_PRICES = {  # USD per million prompt and completion tokens; a dated snapshot may cost more than the name without a date
    "gpt-3.5-turbo": (0.5, 1.5),
    "gpt-4": (30.0, 60.0),
    "gpt-4-turbo": (10.0, 30.0),
    "gpt-4o": (2.5, 10.0),
    "gpt-4o-mini": (0.15, 0.6),
    "gpt-4.1": (2.0, 8.0),
    "gpt-4.1-mini": (0.4, 1.6),
    "gpt-4.1-nano": (0.1, 0.4),
    "gpt-5": (1.25, 10.0),
    "gpt-5-mini": (0.25, 2.0),
    "gpt-5-nano": (0.05, 0.4),
    "gpt-5.1": (1.25, 10.0),
    "gpt-5.2": (1.75, 14.0),
    "gpt-5.4": (2.5, 15.0),
    "gpt-5.4-mini": (0.75, 4.5),
    "gpt-5.4-nano": (0.2, 1.25),
    "o3": (2.0, 8.0),
    "o3-mini": (1.1, 4.4),
    "o4-mini": (1.1, 4.4),
}
_HIGHEST_PRICE = 1e9  # USD per million tokens; a higher one is a typing error
BATCH_DISCOUNT = 0.5  # the Batch API's price beside the list price
_HIDDEN_TOKENS = 256  # what a chat template and a server's own system prompt may add to a prompt
_BYTES_A_TOKEN = 3.5  # of English with mathematics, on average


class Tokens(NamedTuple):
    prompt: int
    completion: int


class Price(NamedTuple):
    """USD per million tokens."""

    prompt: float
    completion: float

    def of(self, tokens: Tokens) -> float:
        """USD."""
        return (tokens.prompt * self.prompt + tokens.completion * self.completion) / 1e6


def price(model: str, usd_per_million: Sequence[str | float] = ()) -> Price | None:
    """The price of a model's tokens: as given (prompt, completion), else from the table, else None.

    Raises:
      UserError: `usd_per_million` is given and is not two numbers.
    """
    if not usd_per_million:
        return Price(*_PRICES[model]) if model in _PRICES else None
    try:
        prompt, completion = (float(usd) for usd in usd_per_million)
        if not (0 <= prompt <= _HIGHEST_PRICE and 0 <= completion <= _HIGHEST_PRICE):
            raise ValueError
    except (TypeError, ValueError):
        given = ",".join(map(str, usd_per_million))
        raise UserError(f"--usd_per_million={given}: give two prices, prompt,completion, such as 2.5,10") from None
    return Price(prompt, completion)


def worst(body: dict[str, Any]) -> Tokens:
    """An upper bound of the tokens of a request: no token is shorter than a byte."""
    return Tokens(_prompt_bytes(body) + _HIDDEN_TOKENS, body["max_tokens"])


def lost(body: dict[str, Any], price: Price | None) -> Tokens:
    """Tokens to book for a try that may be billed without an answer: the likely number where no price is known."""
    return likely(body) if price is None else worst(body)


def most(each: Iterable[Tokens], count: int) -> Tokens:
    """An upper bound of the tokens of any `count` requests; `each`: the bounds of single ones."""
    prompts, completions = zip(Tokens(0, 0), *each)
    return Tokens(sum(heapq.nlargest(count, prompts)), sum(heapq.nlargest(count, completions)))


def likely(body: dict[str, Any]) -> Tokens:
    """An estimate of the prompt's tokens, and an upper bound of the completion's."""
    return Tokens(round(_prompt_bytes(body) / _BYTES_A_TOKEN), body["max_tokens"])


def _prompt_bytes(body: dict[str, Any]) -> int:
    return len(json.dumps(body["messages"], ensure_ascii=False).encode())


class Budget:
    """Lets a request go only when its worst case still fits, beside what is spent and what is in flight.

    What is spent is what was paid, by the endpoint's own count, and what is only booked: the worst case of tries that
    may have been billed without an answer.

    Raises:
      UserError: a limit in USD for a model without a price.
    """

    def __init__(self, price: Price | None, max_usd: float = math.inf, max_tokens: float = math.inf) -> None:
        if price is None and max_usd < math.inf:
            raise UserError("--max_cost_usd needs this model's price; give --usd_per_million=prompt,completion")
        self.price = price
        self._max_usd, self._max_tokens = max_usd, max_tokens
        self.paid_usd, self.paid_tokens = 0.0, 0
        self.booked_usd, self.booked_tokens = 0.0, 0
        self._reserved_usd, self._reserved_tokens = 0.0, 0
        self.reservations = 0  # requests in flight that `reserve` was called for

    @property
    def spent_usd(self) -> float:
        return self.paid_usd + self.booked_usd

    @property
    def spent_tokens(self) -> int:
        return self.paid_tokens + self.booked_tokens

    def spend(self, tokens: Tokens, usd: float | None = None, *, booked: bool = False) -> None:
        """Counts what has been paid: `usd` where that is known (another model's price, say), else by this price.

        Args:
          booked: it is a worst case, of a try without an answer or of an answer without a count.
        """
        tokens = Tokens(max(tokens.prompt, 0), max(tokens.completion, 0))  # a damaged file must not add to the budget
        usd = self._usd(tokens) if usd is None or not 0 <= usd < math.inf else usd
        if booked:
            self.booked_usd, self.booked_tokens = self.booked_usd + usd, self.booked_tokens + sum(tokens)
        else:
            self.paid_usd, self.paid_tokens = self.paid_usd + usd, self.paid_tokens + sum(tokens)

    def summary(self) -> str:
        """The US dollars that were paid and those that are only booked, as text; empty where there are none."""
        paid = f"${self.paid_usd:,.2f} paid"
        if self.booked_usd:
            return f"{paid}, at most ${self.booked_usd:,.2f} more booked"
        return paid if self.paid_usd else ""

    def no_room(self) -> str:
        """Why no other request starts, and what gives room."""
        why = "the budget has no room for another request; raise max_cost_usd or max_tokens_total"
        if not self.booked_tokens:
            return why
        booked = f"${self.booked_usd:,.2f} of it" if self.booked_usd else f"{self.booked_tokens:,} tokens of it"
        return (
            f"{why} ({booked} are only booked, for tries that may have been billed without an answer;"
            " release_bookings takes that back)"
        )

    def reserve(self, worst: Tokens) -> bool:
        """Reserves the worst case until `release`; False where it does not fit."""
        usd, tokens = self._reserved_usd + self._usd(worst), self._reserved_tokens + sum(worst)
        if self.spent_usd + usd > self._max_usd or self.spent_tokens + tokens > self._max_tokens:
            return False
        self._reserved_usd, self._reserved_tokens = usd, tokens
        self.reservations += 1
        return True

    def release(self, worst: Tokens) -> None:
        """Gives back what `reserve` has reserved."""
        self._reserved_usd -= self._usd(worst)
        self._reserved_tokens -= sum(worst)
        self.reservations -= 1

    def _usd(self, tokens: Tokens) -> float:
        return self.price.of(tokens) if self.price else 0.0
