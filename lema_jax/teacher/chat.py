"""One question to a chat model and its answer, whichever way they travel."""

import collections
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.teacher.budget import Price, Tokens

if TYPE_CHECKING:
    from openai import AsyncOpenAI


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
    prompt: str,
    *,
    model: str,
    max_tokens: int,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    sample: int = 0,
    about: Any = None,
) -> Request:
    """A request of one user message. What is None is left out: the endpoint's own default holds."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
    }
    chosen = {"temperature": temperature, "top_p": top_p, "seed": seed}
    body |= {name: value for name, value in chosen.items() if value is not None}
    return Request(body, sample, about)


def wire(body: dict[str, Any], client: "AsyncOpenAI") -> dict[str, Any]:
    """The body as the endpoint wants it.

    OpenAI's own takes only `max_completion_tokens` for its newer models, and for those that reason no word about
    temperature and top_p, though 1 is what they have. Other endpoints' defaults may differ, so they are told.
    """
    if client.base_url.host != "api.openai.com":
        return body
    told = {name: value for name, value in body.items() if name not in ("temperature", "top_p") or value != 1}
    return {"max_completion_tokens" if name == "max_tokens" else name: value for name, value in told.items()}


_FAILED = ("length", "content_filter", "refusal", "no_choices", "too_long")


class Paid(records.Row):
    """What asking cost."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = None  # at the price known when it was paid

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.prompt_tokens, self.completion_tokens)


class Reply(Paid):
    """An answer as it came; `id` is the request's. One that says nothing is an answer too: it was paid for.

    Its tokens are upper bounds where the endpoint reports none.
    """

    text: str
    finish: str  # the endpoint's finish_reason, or what we say instead: "refusal", "no_choices", "too_long"
    model: str  # who answered, in the endpoint's words

    @property
    def failed(self) -> str:
        """Why it is no whole answer, as far as the endpoint says so; empty when it may be one."""
        return self.finish if self.finish in _FAILED else ""


def read_completion(id: str, completion: Any, worst: Tokens, price: Price | None) -> Reply:
    """The reply in a chat completion object of the wire protocol (decoded JSON).

    Args:
      worst: the tokens to count where the object has no usage.

    Raises:
      ValueError: this is no such object; the message says in what.
    """
    try:
        usage = completion.get("usage") or {}
        choices = completion["choices"]
        if not isinstance(choices, list | None):
            raise TypeError("choices")
        choice: Any = choices[0] if choices else {"finish_reason": "no_choices", "message": {}}
        message = choice["message"]
        text, refusal = message.get("content") or "", message.get("refusal") or ""
        tokens = Tokens(
            usage.get("prompt_tokens", worst.prompt),
            usage.get("completion_tokens", worst.completion),
        )
        return Reply(
            id=id,
            text=text or refusal,
            finish="refusal" if refusal and not text else choice.get("finish_reason") or "none",
            model=completion.get("model") or "",
            prompt_tokens=tokens.prompt,
            completion_tokens=tokens.completion,
            cost_usd=price and price.of(tokens),
        )
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:  # ValidationError is a ValueError
        raise ValueError(f"no chat completion ({type(error).__name__})") from None


def unanswerable(status: int, error: Any) -> str:
    """The `finish` of a request that this endpoint will never answer, or "" for any other error.

    Args:
      status: the HTTP status.
      error: the `error` object of the body; endpoints differ in its fields.
    """
    said = str(error).lower()
    if status in (400, 403, 422) and ("content_filter" in said or "content_policy" in said):
        return "content_filter"
    if status == 413 or (status in (400, 422) and ("context_length" in said or "context length" in said)):
        return "too_long"
    return ""


def unanswered(id: str, finish: str) -> Reply:
    """The reply that stands for a request which will never get one."""
    return Reply(id=id, text="", finish=finish, model="", prompt_tokens=0, completion_tokens=0, cost_usd=0)


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
