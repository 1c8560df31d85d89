"""The way to an endpoint: its address and key, what it takes, and connections that break."""

import asyncio
import contextlib
import gzip
import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_server import Act, Server, completion, raw

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import chat, wire
from lema_jax.teacher.endpoint import Endpoint
from lema_jax.teacher.raw_responses import RawResponse
from lema_jax.teacher.wire import Broken, Came, Dialect, Wire


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


BODY = chat.request("q", model="m", max_tokens=50, temperature=0.7, top_p=0.9, seed=1).body


def post(url: str, limit_s: float = 5.0) -> Came:
    async def main() -> Came:
        async with Wire(url, limit_s) as way:
            return await way.post(BODY, limit_s)

    return asyncio.run(main())


def breaks(url: str, **settings) -> Broken:
    with pytest.raises(Broken) as raised:
        post(url, **settings)
    return raised.value


# --- the address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "127.0.0.1:8972/v1", "localhost", "ftp://x", "", " ", "http://", "https:///v1", "//host/v1", "http://a b/v1",
        "http://host:99999/v1", "http://host:port/v1", "http://[::1/v1", "file:///etc/passwd", "http://ho\nst/v1",
        "http://host/v1?key=1", "http://host/v1#x", "http://host/v1/chat/completions", "http://host\\v1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_anything_is_sent(given):
    for make in (lambda: Endpoint(base_url=given), lambda: wire.address(given)):
        with pytest.raises(UserError, match="--base_url") as raised:
            make()
        assert len(str(raised.value).splitlines()) == 1 or "\n" in given


@pytest.mark.parametrize(
    "given",
    ["http://127.0.0.1:8972/v1", "https://host/v1/", "HTTPS://Host", " http://[::1]:80/v1 ", "http://müller.de/v1"],
)
def test_addresses(given):
    assert wire.address(given) == given.strip().rstrip("/")


def test_the_environment_names_an_address_too(monkeypatch):
    assert wire.address(None) == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://host/v1")
    assert wire.address(None) == "http://host/v1"
    assert wire.address("http://other/v1") == "http://other/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "host/v1")
    with pytest.raises(UserError, match="OPENAI_BASE_URL=host/v1"):
        wire.address(None)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_clear_error(text):
    try:
        url = wire.address(text)
    except UserError:
        return
    assert url.lower().startswith(("http://", "https://"))


@pytest.mark.parametrize(
    "url",
    [
        "http://user:sk-secret-1@host/v1", "http://sk-secret-1@host/v1", "http://h/v1?k=sk-secret-1",
        "http://me:pa#sk-secret-1@host/v1", "http://me:pa/sk-secret-1@host/v1", "http://me:sk-secret-1/pa@host/v1",
        "http://me/sk-secret-1@host/v1", "me:sk-secret-1@host", "http://me:p@sk-secret-1?@host/v1", "//a:sk-secret-1@h",
        "host/v1?k=sk-secret-1", "http://host:port?k=sk-secret-1", "http://?k=sk-secret-1", "host/v1#sk-secret-1",
        "http://a b?k=\nsk-secret-1", "http://host/chat/completions#sk-secret-1",
    ],
)  # fmt: skip
def test_an_address_with_a_secret_is_refused_without_showing_it(url):
    with pytest.raises(UserError, match="--base_url") as raised:
        wire.address(url)
    assert "secret" not in str(raised.value)
    assert "pa" not in str(raised.value).replace("password", "")


# --- the key ----------------------------------------------------------------------------------------------------------


def with_key(monkeypatch, key: str) -> Wire:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    return Wire("http://127.0.0.1:1/v1", 1.0)


def test_a_long_key_is_hidden_wherever_it_is(monkeypatch):
    way = with_key(monkeypatch, "sk-secret-of-the-test\n")  # the line break that a file brought along is no part of it
    assert way.clean("key=sk-secret-of-the-testx and sk-secret-of-the-test.") == "key=[key]x and [key]."
    assert way.without_key_in(b'{"a": "sk-secret-of-the-test\xff"}') == b'{"a": "[key]\xff"}'


def test_a_short_key_is_hidden_where_it_is_a_word(monkeypatch):
    way = with_key(monkeypatch, "k")
    assert way.clean("max_tokens is not known: k, kk") == "max_tokens is not known: [key], kk"
    assert way.without_key_in(b"k = 5") == b"k = 5"  # an answer stays as it is


def test_without_a_key_nothing_is_hidden():
    assert Wire("http://127.0.0.1:1/v1", 1.0).clean("none of them") == "none of them"


@pytest.mark.parametrize(
    "key", ["sk-\u00e9t\u00e9-secret", "sk-secret sk-secret", "sk-se\ncret", "sk-se\x00cret", "sk-\ud800"]
)
def test_what_cannot_be_a_key_is_refused_without_showing_it(monkeypatch, key):
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    with pytest.raises(UserError, match="OPENAI_API_KEY") as raised:
        wire.key_from_environment()
    assert key not in str(raised.value)


def test_a_proxy_that_is_none_is_a_clear_error_without_its_password(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "nonsense://user:secret@host")
    monkeypatch.delenv("NO_PROXY")
    with pytest.raises(UserError, match="ALL_PROXY") as raised:
        Wire("http://127.0.0.1:1/v1", 1.0)
    assert "secret" not in str(raised.value)


def test_the_key_does_not_follow_a_redirect(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")
    with Server(lambda body, times: Act(completion("4"))) as other:
        away = Act(b"", 307, {"location": f"{other.url}/chat/completions"})
        with Server(lambda body, times: away) as server:
            assert post(server.url).status == 307
            assert server.headers[0]["authorization"] == "Bearer sk-secret-of-the-test"
        assert not other.headers


# --- what it takes ----------------------------------------------------------------------------------------------------


def test_a_parameter_that_is_refused_is_left_out_and_said_once(capsys):
    dialect = Dialect("http://host/v1")
    assert dialect.body(BODY) == BODY
    for _ in range(3):
        assert dialect.learn(["seed"], BODY)
    assert dialect.learn(["temperature"], dialect.body(BODY))
    assert dialect.body(BODY).keys() == BODY.keys() - {"seed", "temperature"}
    said = capsys.readouterr().err
    assert said.count("does not take seed") == said.count("does not take temperature") == 1
    assert "http://host/v1" in said


def test_a_limit_of_tokens_changes_its_name_and_is_never_left_out():
    dialect = Dialect("http://host/v1")
    assert dialect.learn(["max_tokens", "max_completion_tokens"], BODY)
    sent = dialect.body(BODY)
    assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 50)
    assert not dialect.learn(["max_completion_tokens"], sent)
    assert dialect.body(BODY) == sent


def test_what_was_not_sent_cannot_be_left_out():
    dialect = Dialect("http://host/v1")
    assert not dialect.learn(["seed"], {"model": "m", "messages": []})
    assert not dialect.learn([], BODY)
    assert dialect.body(BODY) == BODY


def test_openai_itself_gets_the_name_it_wants():
    theirs, ours = Dialect("https://api.openai.com/v1"), Dialect("http://127.0.0.1:1/v1")
    plain = chat.request("q", model="m", max_tokens=50).body
    assert theirs.body(plain) == {"model": "m", "messages": plain["messages"], "max_completion_tokens": 50}
    assert ours.body(plain) == plain
    sampling = {"temperature": 1.0, "top_p": 1.0}  # which reasoning models refuse to be told
    assert theirs.body(plain | sampling) == theirs.body(plain)
    assert ours.body(plain | sampling) == plain | sampling
    assert theirs.body(plain | {"temperature": 0.7})["temperature"] == 0.7
    older = theirs.body(plain)
    assert theirs.learn(["max_completion_tokens"], older) is False  # both names are refused: only the user can mend it


# --- connections ------------------------------------------------------------------------------------------------------


def test_every_response_comes_as_it_is():
    for act in (Act(b"\xff{", 200), Act(b"no", 503, {"Retry-After": "5"}), Act(b"", 204), Act(b"\x00", 404)):
        with Server(lambda body, times, act=act: act) as server:
            came = post(server.url)
        assert (came.status, came.body) == (act.status, act.body)
        assert came.headers.get("retry-after") == act.headers.get("Retry-After")


def test_nobody_there_was_sent_nothing():
    with Server(lambda body, times: Act({})) as server:
        pass
    for url in (server.url, "http://no-such-host.invalid/v1"):
        error = breaks(url)
        assert not error.sent
        assert "no connection" in str(error)
        assert "[Errno" not in str(error)


def test_http_is_no_https():
    with Server(lambda body, times: Act({})) as server:
        error = breaks(server.url.replace("http:", "https:"))
    assert (error.sent, error.hopeless) == (False, True)
    assert "http://" in str(error)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"garbage\r\n\r\n",
        HEAD + b"content-length: 100\r\n\r\nabc",
        HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nabc",
    ],
)
def test_a_connection_that_breaks_may_have_been_paid_for(sent):
    with Server(lambda body, times: raw(sent)) as server:
        error = breaks(server.url)
    assert (error.sent, error.late, error.hopeless) == (True, False, False)
    assert "connection broke" in str(error)


class Endless:
    """A server that answers every connection without end, and counts what it got rid of."""

    def __init__(self, head: bytes, body: bytes):
        self.head, self.body, self.sent = head, body, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def serve(self) -> None:
        connection, _ = self.socket.accept()
        with contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(self.head)
            while True:
                connection.sendall(self.body)
                self.sent += len(self.body)

    def __enter__(self) -> "Endless":
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.thread.join(10)
        self.socket.close()


CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (HEAD + b"content-length: 99999999999\r\n\r\n", b" " * 0x10000),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", CHUNK),
        (b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n", CHUNK),
    ],
    ids=["long", "endless", "endless error"],
)
def test_an_answer_without_end_is_a_failure_with_a_name(monkeypatch, head, body):
    monkeypatch.setattr(wire, "LARGEST", 2**20)
    with Endless(head, body) as server:
        error = breaks(server.url, limit_s=30.0)
    assert (error.sent, error.late) == (True, False)
    assert str(error) == "an answer of more than 1 MiB"
    assert server.sent < 64 * 2**20  # what the sockets hold, and not what would fill the memory


def test_a_small_body_that_unpacks_without_end_is_one_too(monkeypatch):
    monkeypatch.setattr(wire, "LARGEST", 2**20)
    packed = {"content-encoding": "gzip"}
    with Server(lambda body, times: Act(gzip.compress(b" " * 2**24), headers=packed)) as server:
        assert str(breaks(server.url)) == "an answer of more than 1 MiB"
    with Server(lambda body, times: Act(gzip.compress(b" " * 2**19), headers=packed)) as server:
        assert post(server.url).body == b" " * 2**19


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b'"', b"a"])
def test_any_answer_that_is_not_too_large_fits_into_a_row(tmp_path, byte):
    body = (byte * wire.LARGEST).decode(errors="replace")
    with Appender(tmp_path / "raw.jsonl", RawResponse) as raw_responses:
        raw_responses.append(RawResponse(id="0123456789abcdef/1", body=body))
    assert sum(len(row.body) for row in records.read(tmp_path / "raw.jsonl", RawResponse)) == len(body)


def test_the_limit_holds_for_the_whole_answer():
    """Also for a server that sends a byte now and then."""
    with Server(lambda body, times: Act(json.dumps(completion("4")).encode(), delay=2.0)) as server:
        error = breaks(server.url, limit_s=0.2)
    assert (error.sent, error.late) == (True, True)
    assert "no answer within 0.2 s" in str(error)


@pytest.mark.parametrize("limit_s", [1e30, float("inf")])
def test_a_limit_may_be_without_end(limit_s):
    with Server(lambda body, times: Act(completion("4"))) as server:
        assert post(server.url, limit_s).status == 200
