"""Questions to a local server by the client, and what is kept of them: what the client's tests share."""

import json
from pathlib import Path

from lema_jax.records import Appender
from lema_jax.teacher import chat
from lema_jax.teacher.chat import Outcome, Reply
from lema_jax.teacher.endpoint import Endpoint
from tests.teacher.wire_server import Act, Server, completion

KEY = "sk-secret-of-the-test"


def questions(count: int, first: int = 0, **settings):
    return [chat.request(f"q{n}", model="m", max_tokens=50, about=n, **settings) for n in range(first, first + count)]


def ask(server: Server, folder: Path, requests, right=lambda request, reply: True, **settings) -> Outcome:
    where = Endpoint(base_url=server.url, **{"concurrency": 8, "timeout_s": 5.0} | settings)
    with Appender(folder / "replies.jsonl", Reply) as replies:
        return where.ask(lambda: iter(requests), replies, right)


def kept(folder: Path) -> dict[str, dict]:
    path = folder / "replies.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def echo(body, times) -> Act:
    return Act(completion("re " + body["messages"][0]["content"]))


def once(first: Act):
    """The server's first answer to each question is `first`, every later one is good."""
    return lambda body, times: first if times == 1 else echo(body, times)


def at_worst(body, times) -> Act:
    """Uses all that a request may use: a token a byte, a long system prompt, every token of the completion."""
    made = completion("x")
    made["usage"] = {"prompt_tokens": len(json.dumps(body["messages"])) + 256, "completion_tokens": body["max_tokens"]}
    return Act(made, delay=0.01)


PRICED = {"usd_per_million": ("1000", "1000")}
