"""One question to a chat model and its answer, whichever way they travel."""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.tasks import thinking
from lema_jax.teacher import response
from lema_jax.teacher.budget import Price, Tokens
from lema_jax.teacher.response import Answer, Failure, Usage

Message = dict[str, str]  # its role (user or assistant) and its content

_MOST_TOKENS = 10**9  # of a reply; no model writes more


@dataclasses.dataclass(frozen=True)
class Request:
    """A chat completion to ask for.

    `id` is a hash of all that shapes the answer: the body and which of several samples it is. Where the model is
    reached is no part of it.
    """

    body: dict[str, Any]  # as in the wire protocol: model, messages, max_tokens, temperature, …
    sample: int = 0
    about: Any = None  # what the caller wants to find again with the reply; shapes nothing

    @functools.cached_property
    def id(self) -> str:
        return records.row_id(body=self.body, sample=self.sample)


def request(
    prompt: str | Sequence[Message],
    *,
    model: str,
    max_tokens: int,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    sample: int = 0,
    about: Any = None,
) -> Request:
    """A request of these messages, or of one of the user's. What is None is left out: the endpoint's default holds.

    Raises:
      UserError: a number that no endpoint takes, or a model's name that cannot be written.
    """
    for name, value in {"temperature": temperature, "top_p": top_p}.items():
        if value is not None and not 0 <= value < math.inf:
            raise UserError(f"--{name}={value}: give a finite number that is not below 0")
    if not 0 < max_tokens <= _MOST_TOKENS:
        raise UserError(f"{max_tokens} tokens of a reply are not possible; give 1 to {_MOST_TOKENS:,}")
    if any("\ud800" <= char <= "\udfff" for char in model):
        raise UserError("--model holds bytes that are no text; give the name that the endpoint knows it by")
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt),
        "max_tokens": max_tokens,
    }
    chosen = {"temperature": temperature, "top_p": top_p, "seed": seed}
    body |= {name: value for name, value in chosen.items() if value is not None}
    return Request(body, sample, about)


class Paid(records.Row):
    """What asking cost."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = None  # at the price known when it was paid
    bound: bool = False  # the tokens are a worst case: the endpoint did not say how many

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.prompt_tokens, self.completion_tokens)


class Reply(Paid):
    """An answer as it came; `id` is the request's. One that says nothing is an answer too: it was paid for."""

    text: str  # with the thinking that a model writes into it
    finish: str  # as `response.Answer` names it; or "too_long", "content_filter", "bad_request" where none came
    model: str  # who answered, in the endpoint's words

    @property
    def failed(self) -> str:
        """Why it is no whole answer; empty when it is one. A thought that was cut off is cut off by its length."""
        finish = response.FINISH.get(self.finish, self.finish)
        if finish != "stop":
            return finish
        said = thinking.spoken(self.text)
        return "length" if not said.whole else "" if said.text.strip() else "empty"


def reply(id: str, answer: Answer, worst: Tokens, price: Price | None) -> Reply:
    """The reply that an answer is, counted at `worst` where the endpoint reports no tokens."""
    tokens = counted(answer.usage, worst)
    return Reply(
        id=id,
        text=answer.text,
        finish=answer.finish,
        model=answer.model,
        prompt_tokens=tokens.prompt,
        completion_tokens=tokens.completion,
        cost_usd=price and price.of(tokens),
        bound=tokens != answer.usage,
    )


def counted(usage: Usage, worst: Tokens) -> Tokens:
    """The tokens that an endpoint reports, and the worst case of what it does not report."""
    return Tokens(
        worst.prompt if usage.prompt is None else usage.prompt,
        worst.completion if usage.completion is None else usage.completion,
    )


def unanswered(id: str, failure: Failure, price: Price | None) -> Reply:
    """The reply that stands for a request which will never get one."""
    tokens = counted(failure.usage, Tokens(0, 0))
    finish = failure.finish or "bad_request"
    used = {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion}
    return Reply(id=id, text="", finish=finish, model="", **used, cost_usd=price.of(tokens) if price else 0)


@dataclasses.dataclass
class Outcome:
    """What asking came to."""

    total: int  # requests wanted
    answered: int = 0  # of them, now in the file
    right: int = 0
    failures: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # unanswered, by reason
    stopped: str = ""  # why it ended before the last request; empty when it did not

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.total + other.total,
            self.answered + other.answered,
            self.right + other.right,
            self.failures + other.failures,
            self.stopped or other.stopped,
        )

    def require_all(self) -> None:
        """Raises UserError unless every request was answered, with the reason and how to go on."""
        if self.answered == self.total:
            return
        why = self.stopped or "; ".join(f"{count} x {reason}" for reason, count in self.failures.most_common(3))
        raise UserError(
            f"{self.answered:,} of {self.total:,} requests are answered and kept ({why});"
            " the same command goes on with the others and pays for nothing twice"
        )
