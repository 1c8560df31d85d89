"""Questions that a chat endpoint answers into a file of graded rows: attempts, or answers to a test."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from lema_jax import tasks
from lema_jax.records import Appender, Attempt, Prediction, Problem, Verdict
from lema_jax.tasks import prompts
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.endpoint import Endpoint, replies_of
from lema_jax.teacher.landing import Landing

Row = TypeVar("Row", Attempt, Prediction)


def answer(
    endpoint: Endpoint,
    requests: Sequence[Request],
    file: Appender[Row],
    replies: Appender[Reply],
    make: Callable[[Request, Reply], Row],
    *,
    ask: bool = True,
) -> Outcome:
    """Asks what `replies` lacks, and appends the row of each reply that `file` lacks.

    A row whose reply is gone is not asked for again; one that has both counts as answered.

    Args:
      requests: of all rows wanted; `about.id` is that of the row.
      make: the row of a reply, of a request whose row `file` lacks.
      ask: whether to ask; else only replies that are there become rows.
    """

    def made(request: Request, reply: Reply) -> Row:
        id = request.about.id
        return file.rows[id] if id in file.rows else make(request, reply)

    asking = [one for one in requests if one.about.id not in file.rows or one.id in replies.rows]
    outcome = Outcome(0)
    with Landing(file, made) as land:
        if ask:
            is_right = lambda request, reply: land(request, reply).verdict is Verdict.RIGHT
            outcome = endpoint.ask(lambda: asking, replies, is_right)
        for request in asking:  # those that were not reached when it stopped
            if reply := replies.rows.get(request.id):
                land(request, reply)
    return outcome


def answers(
    endpoint: Endpoint, requests: Sequence[Request], file: Appender[Row], row: Callable[..., Row], *, style: str
) -> list[Row]:
    """The row of every request, in their order, after asking for those that `file` and the replies beside it lack.

    Args:
      requests: `about` has the `id`, `problem` and `prompt` of the row.
      row: makes a row of these, and of text, answer, verdict, prompt_tokens and completion_tokens.
      style: of the prompts, one of `prompts.STYLES`.

    Raises:
      UserError: not all were answered; what was, is kept.
    """

    def make(request: Request, reply: Reply) -> Row:
        one = request.about
        text, found, verdict = graded(one.problem, reply, style)
        tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
        about = {"id": one.id, "problem": one.problem, "prompt": one.prompt}
        return row(**about, text=text, answer=found, verdict=verdict, **tokens)

    with Appender(replies_of(file.path), Reply) as replies:
        answer(endpoint, requests, file, replies, make).require_all()
    return [file.rows[request.about.id] for request in requests]


def graded(problem: Problem, reply: Reply, style: str) -> tuple[str, str | None, Verdict]:
    """The text of a reply, the answer in it and its verdict; without further questions that the model asks itself.

    One that the endpoint cut off is TRUNCATED, one without an answer UNPARSED. A text that the endpoint itself does not
    call an answer is not graded.

    Args:
      style: of the prompt, one of `prompts.STYLES`.
    """
    text, failed = reply.text, reply.failed
    for stop in prompts.stop(style):
        text, next_question, _ = text.partition(stop)
        if next_question:
            return text, *tasks.grade(problem, text, truncated=False)
    if failed in ("", "empty", "length", "content_filter"):
        return text, *tasks.grade(problem, text, truncated=failed in ("length", "content_filter"))
    return text, None, Verdict.PROMPT_TOO_LONG if failed == "too_long" else Verdict.UNPARSED
