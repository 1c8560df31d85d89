"""Chat templates, run where they can be ended: a template is a program of its maker's, in a model folder from anywhere.

transformers runs it in Jinja's sandbox, which keeps it from files and code, but not from loops without end. So it runs
in a process of its own with a limit of time, memory and output, and that process is ended when one is exceeded.

Some templates write the date. It is that of the first prompt in all prompts of a process, however long that lasts, or
that of the environment's SOURCE_DATE_EPOCH, seconds since 1970, with which prompts can be made again on another day.
"""

import atexit
import functools
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from typing import IO, Any

_SECONDS = 10.0  # for one prompt
_SECONDS_TO_START = 120.0
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
    return _shared().render({"template": template, "messages": messages, "special": special, "moment": moment()})


class _Worker:
    """One process, started at the first prompt and again after each that had to be ended."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, question: dict[str, Any]) -> str:
        with self._lock:
            if self._process is None:
                self._process = self._start()
            found = _exchange(self._process, question, self._seconds)
            if found is None:
                self._end()
                raise TemplateError(
                    f"it did not end within {self._seconds:g} s, {_MOST_MEMORY >> 30} GiB and {_LONGEST:,} characters"
                )
        if "error" in found:
            raise TemplateError(found["error"])
        return found["text"]

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lema_jax.data.template"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the caller
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )
        if _exchange(process, {"template": "", "messages": [], "special": {}, "moment": 0}, _SECONDS_TO_START) is None:
            process.kill()
            raise TemplateError("the process that runs templates does not start")
        return process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@functools.cache
def _shared() -> _Worker:
    worker = _Worker()
    atexit.register(worker.close)
    return worker


def _exchange(process: subprocess.Popen[bytes], question: dict[str, Any], seconds: float) -> dict[str, str] | None:
    """What the process answers; None where it has ended, is late or says too much."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
    except OSError:
        return None
    ends, line = time.monotonic() + seconds, b""
    descriptor = process.stdout.fileno()
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, ends - time.monotonic()))
        part = os.read(descriptor, 1 << 16) if ready else b""
        if not part:
            return None
        line += part
    return json.loads(line)


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
