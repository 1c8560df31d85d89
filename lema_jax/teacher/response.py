"""What an endpoint's response means: an answer, or a named failure.

Success is the allow-list: status 200, JSON without an error, a first choice that ended in a way that is known, and its
text. Everything else is a failure, whose kind says what can mend it. Numbers and strings come from outside: a number
that is no finite count is absent, a lone surrogate becomes U+FFFD.
"""

import dataclasses
import email.utils
import enum
import html
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from lema_jax.teacher import wording

LONGEST_WAIT = 900.0  # seconds; an endpoint that asks to wait longer is out of quota or out of service

# Finish reasons of all servers, mapped to those of the protocol.
FINISH = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "complete": "stop",
    "length": "length", "max_tokens": "length", "model_length": "length", "max_output_tokens": "length",
    "content_filter": "content_filter", "safety": "content_filter", "recitation": "content_filter",
    "prohibited_content": "content_filter", "blocklist": "content_filter", "spii": "content_filter",
    "sensitive": "content_filter",
    "refusal": "refusal",
    "tool_calls": "tool_calls", "function_call": "tool_calls", "tool_use": "tool_calls",
}  # fmt: skip
_GAVE_UP_WAITING = (408, 504, 524)  # statuses of a gateway that gave up while its server may still answer
_MOST_TOKENS = 10**9  # no context holds more
_NEVER_TWICE = ("error", "choices", "message", "content", "finish_reason")
_BLOCKED = re.compile(r'"filtered": true|"block_?reason": "', re.IGNORECASE)  # Azure's and Gemini's
_SURROGATE = re.compile("[\ud800-\udfff]")


class Kind(enum.Enum):
    """What can mend a failure."""

    TRANSIENT = "another try"
    OVERLOADED = "another try, with fewer at once"
    NO_API = "another address; another try where others were answered"
    PARAMETER = "leaving a parameter out"
    REJECTED = "the request's or the user's change"
    PERMANENT = "nothing: this request will never be answered"
    SETUP = "the user"


class Usage(NamedTuple):
    """The tokens that an endpoint reports; None where it reports no finite count."""

    prompt: int | None = None
    completion: int | None = None


_UNKNOWN = Usage()


@dataclasses.dataclass(frozen=True)
class Answer:
    """A choice that ended in a known way."""

    text: str
    finish: str  # stop, length, content_filter, refusal, tool_calls; "empty": it stopped without any text
    model: str  # name of the model that answered, as the endpoint gives it
    usage: Usage


@dataclasses.dataclass(frozen=True)
class Failure:
    """A response that is no answer."""

    kind: Kind
    said: str  # the endpoint's message, or a description of what it sent
    status: int
    after: float | None = None  # seconds that it asks to wait
    billed: bool = False  # whether the endpoint may bill it
    usage: Usage = _UNKNOWN
    finish: str = ""  # of a PERMANENT failure: "too_long", "content_filter"
    parameters: tuple[str, ...] = ()  # of the request, that the endpoint says it does not take


def read(status: int, headers: Mapping[str, str], body: bytes) -> Answer | Failure:
    """What a response to a chat completion means.

    Args:
      headers: of the response, names in lower case.
      body: as it came.
    """
    try:
        value = decode(body)
    except ValueError as error:
        value, flaw = None, str(error)
    else:
        flaw = ""
    if status != 200:
        return _error_status(status, headers, body, value)
    if flaw:
        return _no_json(body, headers, flaw)
    return read_completion(value, retry_after(headers))


def decode(body: bytes) -> Any:
    """The JSON value of a body.

    Raises:
      ValueError: it is none, or it is ambiguous; the message says in what.
    """
    text = body.decode("utf-8-sig", errors="replace")
    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: wrong from character {error.pos:,} on") from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 30 else float(digits)  # int() refuses very long texts


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        for name, value in pairs:
            if name in _NEVER_TWICE and value != made[name]:
                raise ValueError(f"{name!r} is given twice, and differs")
    return made


def read_completion(value: Any, after: float | None = None) -> Answer | Failure:
    """What a chat completion object of the wire protocol (decoded JSON) with status 200 means.

    Args:
      after: the seconds to wait that came with it, where it is an error.
    """
    usage = _usage(value)
    if (error := wording.error_in(value)) is not None:
        return dataclasses.replace(judge(wording.status_in(error), error, after), usage=usage)
    incomplete = lambda said: Failure(Kind.TRANSIENT, said, 200, billed=True, usage=usage)
    if not isinstance(value, dict):
        return incomplete("no chat completion: no JSON object")
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        said = _short(value)
        if _BLOCKED.search(said):
            return Failure(
                Kind.PERMANENT, "no choices: the prompt is filtered", 200, usage=usage, finish="content_filter"
            )
        return incomplete(f"no choices in the answer: {said[:200]}")
    if (error := wording.error_in(choice)) is not None:
        return dataclasses.replace(judge(wording.status_in(error), error, after), usage=usage, billed=True)
    message, reason = choice.get("message"), choice.get("finish_reason")
    text = _text(message.get("content")) if isinstance(message, dict) else None
    if not isinstance(message, dict) or text is None:
        return incomplete("no chat completion: a choice without a message")
    finish = FINISH.get(reason.partition(":")[0].strip().lower()) if isinstance(reason, str) else None
    if finish is None:
        return incomplete(f"an incomplete answer: finish_reason {_short(reason)[:80]}")
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        text, finish = text or _clean(refusal), "refusal"
    if finish == "stop" and not text.strip():
        finish = "empty"
    model = value.get("model")
    return Answer(text, finish, _clean(model) if isinstance(model, str) else "", usage)


def _text(content: Any) -> str | None:
    """A message's text: a string, or the text parts of a list; what a model thinks is no part of it. None: neither."""
    if content is None:
        return ""
    if isinstance(content, str):
        return _clean(content)
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return None
    parts = [part.get("text") if isinstance(part, dict) and _is_said(part) else part for part in content]
    return "".join(_clean(part) for part in parts if isinstance(part, str))


def _is_said(part: dict[str, Any]) -> bool:
    return part.get("type", "text") in ("text", "output_text")


def _usage(value: Any) -> Usage:
    usage = value.get("usage") if isinstance(value, dict) else None
    if not isinstance(usage, dict):
        return Usage()
    prompt, completion, total = (_count(usage.get(f"{kind}_tokens")) for kind in ("prompt", "completion", "total"))
    if prompt is not None and total is not None:  # what a model thinks is billed, and some count it in the total alone
        completion = max(completion or 0, total - prompt)
    return Usage(prompt, completion)


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_TOKENS:
        return None
    return math.ceil(value)


def _no_json(body: bytes, headers: Mapping[str, str], flaw: str) -> Failure:
    start = body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"<" or "html" in headers.get("content-type", ""):
        return Failure(Kind.NO_API, f"a web page, which is no answer of an API: {plain(_read_text(body))[:100]}", 200)
    if start and start not in b"{[":
        said = f"text, which is no answer of an API (see --base_url): {plain(_read_text(body))[:100]}"
        return Failure(Kind.TRANSIENT, said, 200, billed=True)
    return Failure(Kind.TRANSIENT, f"a malformed answer ({flaw if start else 'empty'})", 200, billed=True)


def _error_status(status: int, headers: Mapping[str, str], body: bytes, value: Any) -> Failure:
    if 300 <= status < 400:
        to = plain(headers.get("location", "another address"))
        return Failure(Kind.SETUP, f"it redirects to {to}", status)
    error = wording.error_in(value)
    if error is None:
        error = value if isinstance(value, dict | list) and value else _read_text(body)
    return judge(status, error, retry_after(headers))


def judge(status: int, error: Any, after: float | None = None) -> Failure:
    """What an error object with this status means; where its text names the cause, the text decides."""
    said, shown = wording.words(error), plain(wording.message(error))
    after = wording.hinted_wait(said) if after is None else after
    failure = Failure(Kind.TRANSIENT, f"status {status}{f': {shown}' if shown else ''}", status, after)
    as_ = lambda kind, **more: dataclasses.replace(failure, kind=kind, **more)
    if wording.is_quota(status, said, after) or wording.is_account(status, said):
        return as_(Kind.SETUP)
    passing = after is not None or wording.is_passing(said)
    if finish := wording.own_failure(status, said, passing):
        return as_(Kind.PERMANENT, finish=finish)
    if (after or 0) > LONGEST_WAIT:
        return as_(Kind.SETUP, said=f"{failure.said} (it asks to wait {after:,.0f} s)")
    if status == 503 and wording.is_starting(said):  # fewer at once would not help
        return as_(Kind.TRANSIENT)
    if status in (429, 503, 529):
        return as_(Kind.OVERLOADED)
    if status in (401, 404, 405, 501) or (status == 403 and not passing):
        return as_(Kind.SETUP)
    if passing or status in (408, 409, 425) or status >= 500 or status < 300:
        return as_(Kind.TRANSIENT, billed=status in _GAVE_UP_WAITING or status < 300)
    if parameters := wording.parameters_not_taken(said):
        return as_(Kind.PARAMETER, parameters=parameters)
    return as_(Kind.REJECTED)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a response asks to wait, given as milliseconds, seconds or a date; None for anything else."""
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    if (seconds := _seconds(given)) is not None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given or "").timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return None


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def plain(text: str) -> str:
    """Text from outside on one line: no markup, no control characters, at most 500 characters."""
    text = re.sub(r"<(script|style)\b.*?</\1>|<!--.*?-->|</?[a-zA-Z!][^<>]*>", " ", text[:5000], flags=re.DOTALL)
    text = "".join(char if char.isprintable() else " " for char in _clean(html.unescape(text)))
    return " ".join(text.split())[:500]


def _short(value: Any) -> str:
    try:
        return plain(json.dumps(value))
    except RecursionError:
        return "deeply nested JSON"


def _clean(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _read_text(body: bytes) -> str:
    return body[:5000].decode("utf-8", errors="replace")
