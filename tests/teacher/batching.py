"""Questions to a local server by its Batch API: what the tests of batches share."""

import json

from lema_jax.records import Appender
from lema_jax.teacher import chat, losses
from lema_jax.teacher.chat import Outcome, Reply
from lema_jax.teacher.endpoint import Endpoint
from tests.teacher.wire_server import Act, Server, completion


def questions(count: int):
    return [chat.request(f"q{n}", model="m", max_tokens=50, about=n) for n in range(count)]


def ask(server: Server, folder, requests, **settings) -> Outcome:
    where = Endpoint(base_url=server.url, batch=True, batch_poll_s=0.01, **settings)
    with Appender(folder / "replies.jsonl", Reply) as replies:
        return where.ask(lambda: iter(requests), replies, lambda request, reply: reply.text == f"re q{request.about}")


def kept(folder) -> dict[str, str]:
    rows = [json.loads(line) for line in (folder / "replies.jsonl").read_bytes().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row["text"] for row in rows}


def echo(body, times) -> Act:
    return Act(completion("re " + body["messages"][0]["content"]))


class Killed(Exception):
    pass


async def killed(*args):
    raise Killed


PRICED = {"usd_per_million": ("2000", "2000")}  # halved: a tenth of a cent a token


ONE = len(json.dumps(questions(1)[0].body["messages"])) + 256 + 50  # the worst case of a request


def booked(folder) -> int:
    return sum(sum(loss.tokens) for loss in losses.read(folder / "replies.jsonl") if loss.bound)
