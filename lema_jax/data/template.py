"""Chat templates, run where they can be ended: a template is a program of its maker's, in a model folder from anywhere.

transformers runs it in Jinja's sandbox, which keeps it from files and code, but not from loops without end. So it runs
in a process of its own with a limit of time, memory and output, and that process is ended when one is exceeded.

Some templates write the date. It is that of the first prompt in all prompts of a process, however long that lasts, or
that of the environment's SOURCE_DATE_EPOCH, seconds since 1970, with which prompts can be made again on another day.
"""

import functools
import json
import os
import resource
import signal
import sys
import time
from datetime import datetime
from typing import IO, Any

from lema_jax.worker import Ended, NotStarted, Worker

_SECONDS = 10.0  # for one prompt
_MOST_MEMORY = 4 << 30  # bytes of address space
_DATE = "SOURCE_DATE_EPOCH"  # as https://reproducible-builds.org/specs/source-date-epoch
_LATEST = 253_000_000_000  # seconds: the year 9987, near the last that a date can have
_LONGEST = 1 << 22  # characters of a prompt: no model has room for so many


class TemplateError(Exception):
    """Why a template gives no prompt, in words for its user."""


@functools.cache
def moment() -> int:
    """When prompts are rendered, as seconds since 1970: see above.

    Raises:
      TemplateError: the environment's is no such number.
    """
    said = os.environ.get(_DATE, "").strip()
    if not said:
        return int(time.time())
    if not (said.isascii() and said.isdecimal() and int(said[:20]) <= _LATEST):
        raise TemplateError(f"the environment's {_DATE}={said!r:.80} is no number of seconds since 1970")
    return int(said)


def note(template: str) -> str:
    """What a user is to know of a template that writes the date; empty of any other."""
    if "strftime_now" not in template:
        return ""
    day = datetime.fromtimestamp(moment())
    return f"the chat template can write the date, {day:%Y-%m-%d} here; {_DATE}={moment()} gives the same prompts later"


def render(template: str, messages: list[dict[str, str]], special: dict[str, Any]) -> str:
    """The prompt of a conversation, up to where the assistant's answer begins.

    Args:
      special: the tokenizer's special tokens by their roles, which templates name.

    Raises:
      TemplateError: the template fails, or does not come to an end within the limits.
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
    """A clock that stands still for transformers' `strftime_now`, in the process of templates alone."""

    moment = 0

    @classmethod
    def now(cls, tz: Any = None) -> "_Fixed":
        return cls.fromtimestamp(cls.moment, tz)


def _serve(questions: IO[str], answers: IO[str]) -> None:
    from transformers.utils import chat_template_utils

    vars(chat_template_utils)["datetime"] = _Fixed  # no argument says when
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    for line in questions:
        signal.alarm(2 * round(_SECONDS))  # a caller that was killed ends nothing any more
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
        except Exception as error:  # a template can fail in any way
            answer = {"error": str(error)[:1000] or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        signal.alarm(0)


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
