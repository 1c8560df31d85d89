"""A chat endpoint that speaks the wire protocol over a loopback socket, and misbehaves as it is told.

Chat completions without streaming, and the Batch API with its files. In a test it runs in a thread:

    with Server(lambda body, times: Act(completion("4"))) as server: ... server.url ...

As a program it answers everything after --delay seconds and prints its address (for the benchmark).
"""

import asyncio
import collections
import dataclasses
import json
import sys
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass
class Act:
    """What the server does with a request."""

    body: Any  # sent as JSON; bytes as they are
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False  # close the connection in the middle of the body
    raw: bytes | None = None  # sent in place of a response, as it is; then the connection is closed


def completion(text: str | None, finish: str = "stop", *, model: str = "served", usage: bool = True, **message) -> dict:
    """A chat completion object."""
    made: dict[str, Any] = {"id": "c", "object": "chat.completion", "created": 1, "model": model}
    made["choices"] = [
        {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    ]
    if usage:
        made["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return made


def raw(data: bytes) -> Act:
    """Whatever bytes in place of a response."""
    return Act(None, raw=data)


def error(message: str, status: int, code: str | None = None, **headers: str) -> Act:
    body = {"error": {"message": message, "type": "some_error", "param": None, "code": code}}
    return Act(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


Behaviour = Callable[[dict[str, Any], int], Act]


class Server:
    """Answers chat completions by `behave(body, times)`, where `times` counts how often this body was asked, from 1.

    Args:
      key: the only key that it lets in; None lets in everyone.
      finished: how many lines of a batch it does before the batch ends as `batch_end`; None does all of them.
      batch_api: False answers 404 to all that is of the Batch API.
      write: the lines of an output file, as the bytes that the file has.
    """

    def __init__(
        self,
        behave: Behaviour,
        *,
        key: str | None = None,
        finished: int | None = None,
        batch_end: str = "completed",
        batch_api: bool = True,
        write: Callable[[list[bytes]], bytes] = b"".join,
    ):
        self.behave, self.key, self.finished, self.batch_end = behave, key, finished, batch_end
        self.batch_api, self.write = batch_api, write
        self.gone: set[str] = set()  # ids of batches and files that it does not know any more
        self.asked: list[str] = []  # the last message of each request, as they came in
        self.bodies: collections.deque[dict[str, Any]] = collections.deque(maxlen=1000)  # likewise, the last ones
        self.headers: collections.deque[dict[str, str]] = collections.deque(maxlen=1000)  # of the last requests
        self.answered: list[str] = []  # those whose whole answer was handed to the socket
        self.in_flight = self.most_in_flight = 0
        self.connections = 0
        self._times: collections.Counter[str] = collections.Counter()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Server":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    # --- what the paths do --------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Act:
        path, _, query = path.partition("?")
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            given = headers.get("authorization", "").removeprefix("Bearer ")
            return error(f"Incorrect API key provided: {given}.", 401, "invalid_api_key")
        self.headers.append(headers)
        if path == "/v1/chat/completions":
            return self._complete(json.loads(body))
        if not self.batch_api or self.gone.intersection(path.split("/")):
            return error(f"no such path: {path}", 404)
        if path == "/v1/files":
            return self._upload(body)
        if path.startswith("/v1/files/"):
            return Act(self.files[path.split("/")[3]])
        if path == "/v1/batches" and method == "POST":
            return self._submit(json.loads(body))
        if path.startswith("/v1/batches/"):
            return Act(self._look(path.split("/")[3]))
        if path.startswith("/v1/batches"):
            return Act(self._page(dict(urllib.parse.parse_qsl(query))))
        return error(f"no such path: {path}", 404)

    def _complete(self, body: dict[str, Any]) -> Act:
        asked = body["messages"][-1]["content"]
        self.asked.append(asked)
        self.bodies.append(body)
        self._times[asked] += 1
        return self.behave(body, self._times[asked])

    def _upload(self, form: bytes) -> Act:
        boundary = form[: form.index(b"\r\n")]
        parts = [part for part in form.split(boundary) if b'name="file"' in part]
        return Act(self._file(parts[0].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"), "batch"))

    def _file(self, content: bytes, purpose: str) -> dict[str, Any]:
        id = f"file-{len(self.files)}"
        self.files[id] = content
        return {"id": id, "object": "file", "bytes": len(content), "created_at": 1, "filename": "f", "purpose": purpose}

    def _submit(self, wanted: dict[str, Any]) -> Act:
        id = f"batch_{len(self.batches)}"
        self.batches[id] = wanted | {
            "id": id, "object": "batch", "status": "in_progress", "created_at": 1, "output_file_id": None,
            "error_file_id": None, "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }  # fmt: skip
        return Act(self.batches[id])

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        """Some of the batches, the newest first."""
        ids = list(self.batches)[::-1]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        end = start + int(query.get("limit", 20))
        return {"object": "list", "data": [self.batches[id] for id in ids[start:end]], "has_more": end < len(ids)}

    def _look(self, id: str) -> dict[str, Any]:
        """A batch ends between the first look at it and the second."""
        batch = self.batches[id]
        seen = dict(batch)
        if batch["status"] == "in_progress":
            self._do(batch)
        return seen

    def _do(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.batch_end
        if self.batch_end == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "bad", "message": "line 1 is no request"}]}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].split(b"\n") if line]
        done = len(lines) if self.finished is None else self.finished
        good, bad = [], []
        for line in lines[:done]:
            act = self._complete(line["body"])
            row = {"id": "r", "custom_id": line["custom_id"], "error": None}
            body = act.body.decode() if isinstance(act.body, bytes) else act.body
            row["response"] = {"status_code": act.status, "request_id": "q", "body": body}
            (good if act.status == 200 else bad).append(row)
        for line in lines[done:]:
            late = {"code": "batch_expired", "message": "This request could not be executed in time."}
            bad.append({"id": "r", "custom_id": line["custom_id"], "response": None, "error": late})
        for name, rows in (("output_file_id", good[::-1]), ("error_file_id", bad)):  # the order is not kept
            if rows:
                batch[name] = self._file(self.write(list(map(_as_line, rows))), "batch_output")["id"]
        batch["request_counts"] = {"total": len(good) + len(bad), "completed": len(good), "failed": len(bad)}


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server):
        self.server, self.received = server, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections += 1

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received[:1] == b"\x16":  # who greets in TLS is told off in plain text, as other servers do
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self.transport.close()
            return
        head, found, rest = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if headers.get("transfer-encoding") == "chunked":
            if not rest.endswith(b"0\r\n\r\n"):
                return
            body, length = _unchunked(rest), len(rest)
        elif len(rest) < length:
            return
        else:
            body = rest[:length]
        self.received = rest[length:]
        method, path, _ = first.split(" ")
        act = self.server.handle(method, path, headers, body)
        asked = self.server.asked[-1] if path.endswith("/chat/completions") and self.server.asked else ""
        self.server.in_flight += 1
        self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        if act.delay:
            asyncio.get_running_loop().call_later(act.delay, self.send, act, asked)
        else:
            self.send(act, asked)

    def send(self, act: Act, asked: str) -> None:
        self.server.in_flight -= 1
        if act.raw is not None:
            self.transport.write(act.raw)
            self.transport.close()
            return
        body = act.body if isinstance(act.body, bytes) else json.dumps(act.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body))} | act.headers
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {act.status} Told\r\n{head}\r\n".encode())
        self.transport.write(body[: len(body) // 2] if act.cut else body)
        if act.cut:
            self.transport.close()
        elif not self.transport.is_closing():
            self.server.answered.append(asked)


def _as_line(row: dict[str, Any]) -> bytes:
    """A row with its characters as they are, where they can be written at all."""
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode() + b"\n"


def _unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
        if size == b"0":
            break
    return body


def main(delay: str, length: str) -> None:
    answer = completion("y" * int(length))
    with Server(lambda body, times: Act(answer, delay=float(delay))) as server:
        print(server.url, flush=True)
        sys.stdin.read()  # until the parent closes it


if __name__ == "__main__":
    main(*sys.argv[1:])
