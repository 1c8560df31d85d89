"""Renders chat templates in a separate process: a template is a program from an untrusted model folder.

transformers runs it in Jinja's sandbox, which prevents access to files and code, but not infinite loops. The process
has limits of time, memory and output, and is killed if it exceeds one.

Some templates print the date. It is the same one in all prompts, so that a command goes on tomorrow with the prompts of
today; the environment variable SOURCE_DATE_EPOCH (seconds since 1970, UTC) sets another.
"""

import functools
import json
import os
import resource
import signal
import sys
from datetime import UTC, datetime
from typing import IO, Any

from lema_jax.worker import Ended, NotStarted, Worker

_SECONDS = 10.0  # for one prompt
_MOST_MEMORY = 4 << 30  # bytes of address space
_DATE = "SOURCE_DATE_EPOCH"  # as https://reproducible-builds.org/specs/source-date-epoch
_DAY = 1_721_995_200  # noon of 2024-07-26, the date of Llama 3's template where it knows no other
_LATEST = 253_000_000_000  # seconds: the year 9987, near the end of datetime's range
_LONGEST = 1 << 22  # characters of a prompt, beyond any model's context


class TemplateError(Exception):
    """A template failed; the message is for the user."""


@functools.cache
def moment() -> int:
    """The time of all prompts, in seconds since 1970: the clock's would make other prompts, and rows, tomorrow.

    Raises:
      TemplateError: SOURCE_DATE_EPOCH is not such a number.
    """
    value = os.environ.get(_DATE, "").strip()
    if not value:
        return _DAY
    if not (value.isascii() and value.isdecimal() and int(value[:20]) <= _LATEST):
        raise TemplateError(f"the environment's {_DATE}={value!r:.80} is no number of seconds since 1970")
    return int(value)


def note(template: str) -> str:
    """A note for the user of a template that may print the date; empty for others."""
    if "strftime_now" not in template:
        return ""
    day = datetime.fromtimestamp(moment(), UTC)
    return f"the chat template can write the date, {day:%Y-%m-%d} here; another is set in seconds by {_DATE}"


def render(template: str, messages: list[dict[str, str]], special: dict[str, Any]) -> str:
    """The prompt of a conversation, up to the start of the assistant's answer.

    Args:
      special: the tokenizer's special tokens by role, variables of the template.

    Raises:
      TemplateError: the template fails, or exceeds the limits.
    """
    question = {"template": template, "messages": messages, "special": special, "moment": moment()}
    try:
        found = _worker().ask(question, _SECONDS)
    except Ended:
        raise TemplateError(
            f"it did not end within {_SECONDS:g} s, {_MOST_MEMORY >> 30} GiB and {_LONGEST:,} characters"
        ) from None
    except NotStarted:
        raise TemplateError("the process that runs templates does not start") from None
    if "error" in found:
        raise TemplateError(found["error"])
    return found["text"]


@functools.cache
def _worker() -> Worker:
    return Worker("lema_jax.data.template", first={"template": "", "messages": [], "special": {}, "moment": 0})


class _Fixed(datetime):
    """A fixed clock for transformers' `strftime_now`, in the template process only."""

    moment = 0

    @classmethod
    def now(cls, tz: Any = None) -> "_Fixed":
        then = cls.fromtimestamp(cls.moment, tz or UTC)
        return then if tz else then.replace(tzinfo=None)


def _serve(questions: IO[str], answers: IO[str]) -> None:
    from transformers.utils import chat_template_utils

    vars(chat_template_utils)["datetime"] = _Fixed  # the function takes no time
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    for line in questions:
        signal.alarm(2 * round(_SECONDS))  # the caller may be dead
        question = json.loads(line)
        _Fixed.moment = question["moment"]
        try:
            texts = chat_template_utils.render_jinja_template(
                [question["messages"]],
                chat_template=question["template"],
                add_generation_prompt=True,
                **question["special"],
            )[0]
            if len(texts[0]) > _LONGEST:
                break
            answer = {"text": texts[0]}
        except Exception as error:  # a template may raise anything
            answer = {"error": str(error)[:1000] or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        signal.alarm(0)


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
