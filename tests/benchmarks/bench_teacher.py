"""Asking 50,000 questions: throughput beside a bare asyncio client on the same server, and memory on the way.

  python tests/benchmarks/bench_teacher.py [requests] [concurrency] [seconds that the server takes to answer]

Prints one JSON line. The bare client writes requests to plain sockets and decodes the JSON that comes back; it retries,
counts and keeps nothing, so it is what the server can give at this concurrency. It runs before and after ours, each
time over a tenth of the requests (its rate does not depend on their number).
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lema_jax.records import Appender
from lema_jax.teacher import chat
from lema_jax.teacher.chat import Reply, Request
from lema_jax.teacher.endpoint import Endpoint

SERVER = Path(__file__).parents[1] / "teacher" / "wire_server.py"
PROMPT = "x" * 4000  # as long as four worked examples and a case
ANSWER_LENGTH = 700


def main(count: int = 50_000, concurrency: int = 64, delay: float = 0.5) -> None:
    """Runs both clients and prints what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, SERVER, str(delay), str(ANSWER_LENGTH)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout
        url = server.stdout.readline().strip()
        bare_before = bare(url, count // 10, concurrency)
        ours, memory = measured(url, count, concurrency, Path(folder))
        bare_after = bare(url, count // 10, concurrency)
        server.communicate("")
    print(
        json.dumps(
            {
                "requests": count,
                "concurrency": concurrency,
                "server_delay_s": delay,
                "bare_per_s": [round(bare_before, 1), round(bare_after, 1)],
                "ours_per_s": round(ours, 1),
                "ours_to_bare": round(2 * ours / (bare_before + bare_after), 3),
                "memory_mb_by_tenth": memory,
            }
        )
    )


def requests(count: int) -> Iterator[Request]:
    return (chat.request(f"{number} {PROMPT}", model="m", max_tokens=500) for number in range(count))


def measured(url: str, count: int, concurrency: int, folder: Path) -> tuple[float, list[int]]:
    """Requests a second of ours, durable answers included, and the memory in MB after each tenth."""
    answered = 0
    memory: list[int] = []

    def right(request: Request, reply: Reply) -> bool:
        nonlocal answered
        answered += 1
        if answered % max(1, count // 10) == 0:
            memory.append(round(resident_mb()))
        return True

    os.environ["OPENAI_API_KEY"] = "none"
    with Appender(folder / "replies.jsonl", Reply) as replies:
        start = time.perf_counter()
        paid = Endpoint(base_url=url, concurrency=concurrency, usd_per_million=("1", "1"))  # as many at once as it may
        paid.ask(lambda: requests(count), replies, right).require_all()
        return count / (time.perf_counter() - start), memory


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def bare(url: str, count: int, concurrency: int) -> float:
    """Requests a second of a client that does nothing but ask."""
    host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
    waiting = requests(count)

    async def work() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for request in waiting:
            body = json.dumps(request.body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
            json.loads(await reader.readexactly(length))
        writer.close()

    async def run() -> None:
        await asyncio.gather(*(work() for _ in range(concurrency)))

    start = time.perf_counter()
    asyncio.run(run())
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, int, float), sys.argv[1:])))
