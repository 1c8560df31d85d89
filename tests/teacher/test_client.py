"""The client against a server that misbehaves: every answer kept, nothing asked twice, clear ends."""

import asyncio
import collections
import email.utils
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_server import Act, Server, completion, error

from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import chat, client
from lema_jax.teacher.budget import Price, Tokens
from lema_jax.teacher.chat import Outcome, Reply
from lema_jax.teacher.endpoint import Endpoint

KEY = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(client, "_backoff", lambda number: 0.002)


def questions(count: int, first: int = 0, **settings):
    return [chat.request(f"q{n}", model="m", max_tokens=50, about=n, **settings) for n in range(first, first + count)]


def ask(server: Server, folder: Path, requests, right=lambda request, reply: True, **settings) -> Outcome:
    where = Endpoint(base_url=server.url, **{"concurrency": 8, "timeout_s": 5.0} | settings)
    with Appender(folder / "replies.jsonl", Reply) as replies:
        return where.ask(lambda: iter(requests), replies, right)


def kept(folder: Path) -> dict[str, dict]:
    lines = (folder / "replies.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def echo(body, times) -> Act:
    return Act(completion("re " + body["messages"][0]["content"]))


def once(first: Act):
    """The server's first answer to each question is `first`, every later one is good."""
    return lambda body, times: first if times == 1 else echo(body, times)


def test_every_request_is_asked_once_and_its_answer_kept(tmp_path):
    requests = questions(60)
    with Server(echo) as server:
        outcome = ask(server, tmp_path, requests, lambda request, reply: reply.text == f"re q{request.about}")
        assert (outcome.total, outcome.answered, outcome.right, outcome.stopped) == (60, 60, 60, "")
        assert sorted(server.asked) == sorted(f"q{n}" for n in range(60))
        assert server.most_in_flight <= 8
    rows = kept(tmp_path)
    assert {rows[request.id]["text"] for request in requests} == {f"re q{n}" for n in range(60)}
    assert set(rows[requests[0].id].items()) >= {("finish", "stop"), ("model", "served"), ("prompt_tokens", 100)}


def test_a_rerun_asks_only_what_is_missing(tmp_path):
    with Server(echo) as server:
        ask(server, tmp_path, questions(5))
        outcome = ask(server, tmp_path, questions(9))
        assert (outcome.answered, outcome.right) == (9, 9)
        assert collections.Counter(server.asked) == dict.fromkeys((f"q{n}" for n in range(9)), 1)


def test_the_same_question_twice_is_paid_once(tmp_path):
    slow = Act(completion("x"), delay=0.05)
    with Server(lambda body, times: slow) as server:
        outcome = ask(server, tmp_path, questions(3) * 4)
        assert outcome.answered == outcome.total
        assert len(server.asked) == 3


def test_an_answer_is_on_the_disk_before_it_counts(tmp_path):
    def on_disk(request, reply):
        assert reply.id in (tmp_path / "replies.jsonl").read_text()
        return True

    with Server(echo) as server:
        assert ask(server, tmp_path, questions(20), on_disk).right == 20


@pytest.mark.parametrize(
    "first",
    [
        error("slow down", 429),
        error("slow down", 429, retry_after="0.01"),
        error("slow down", 429, retry_after_ms="5"),
        error("broken", 500),
        error("overloaded", 529),
        Act(b"<html>bad gateway</html>", 502, {"content-type": "text/html"}),
        Act(b"{not json"),
        Act(b"<html>ok</html>", 200, {"content-type": "text/html"}),
        Act({"object": "something else"}),
        Act([]),
        Act({"choices": [{"message": {"content": ["parts"]}}]}),
        Act(completion("x" * 5000), cut=True),
        Act(completion("late"), delay=0.3),
    ],
    ids=lambda act: f"{act.status}-{str(act.body)[:12]}{'-cut' * act.cut}{'-slow' * bool(act.delay)}",
)
def test_passing_troubles_are_tried_again(tmp_path, first):
    with Server(once(first)) as server:
        outcome = ask(server, tmp_path, questions(6), timeout_s=0.15, concurrency=3)
        assert (outcome.answered, outcome.failures) == (6, {})
        assert collections.Counter(server.asked) == dict.fromkeys((f"q{n}" for n in range(6)), 2)
    assert {row["text"] for row in kept(tmp_path).values()} == {f"re q{n}" for n in range(6)}


def test_nothing_starts_while_the_endpoint_asks_to_wait(tmp_path):
    starts = []

    def behave(body, times):
        starts.append(time.monotonic())
        return error("slow down", 429, retry_after="0.4") if len(starts) == 1 else echo(body, times)

    with Server(behave) as server:
        ask(server, tmp_path, questions(5), concurrency=1)
    assert len(starts) == 6
    assert min(starts[1:]) - starts[0] >= 0.39


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (error(f"Incorrect API key provided: {KEY}.", 401, "invalid_api_key"), "see OPENAI_API_KEY"),
        (error("The model `m` does not exist", 404, "model_not_found"), "see --model and --base_url"),
        (error("temperature must be at most 2", 400), "temperature must be at most 2"),
        (error("You exceeded your current quota", 429, "insufficient_quota"), "quota"),
        (error("Daily limit reached", 429, retry_after="86400"), "Daily limit reached"),
    ],
)
def test_what_another_try_cannot_mend_ends_the_run(tmp_path, capfd, act, said):
    with Server(lambda body, times: act) as server, pytest.raises(UserError, match=said) as raised:
        ask(server, tmp_path, questions(100), concurrency=4)
    assert len(server.asked) <= 4
    out, err = capfd.readouterr()
    assert KEY not in str(raised.value) + out + err + (tmp_path / "replies.jsonl").read_text()


def test_answers_in_flight_are_kept_when_the_run_ends(tmp_path):
    def behave(body, times):
        if body["messages"][0]["content"] == "q3":
            return error("no such model", 404)
        return Act(completion("x"), delay=0.15)

    with Server(behave) as server, pytest.raises(UserError, match="no such model"):
        ask(server, tmp_path, questions(50), concurrency=4)
    assert len(kept(tmp_path)) == 3


def test_a_bad_key_and_no_key(tmp_path, monkeypatch):
    with Server(echo, key="another") as server, pytest.raises(UserError, match="Incorrect API key") as raised:
        ask(server, tmp_path, questions(1))
    assert KEY not in str(raised.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="set OPENAI_API_KEY"):
        Endpoint().connect()
    with Server(echo) as server:
        assert ask(server, tmp_path, questions(1)).answered == 1  # a local endpoint needs none


@pytest.mark.parametrize(
    ("act", "finish", "failed"),
    [
        (Act(completion("half", "length")), "length", "length"),
        (Act(completion("", "content_filter")), "content_filter", "content_filter"),
        (Act(completion(None)), "stop", ""),
        (Act(completion(None, refusal="I will not.")), "refusal", "refusal"),
        (Act(completion("x") | {"choices": []}), "no_choices", "no_choices"),
        (Act(completion("x") | {"choices": None}), "no_choices", "no_choices"),
        (error("maximum context length is 10 tokens", 400, "context_length_exceeded"), "too_long", "too_long"),
        (error("This model's maximum context length is 9", 400), "too_long", "too_long"),
        (error("filtered", 400, "content_filter"), "content_filter", "content_filter"),
    ],
)
def test_what_is_no_whole_answer_is_recorded_as_such(tmp_path, act, finish, failed):
    with Server(lambda body, times: act) as server:
        for _ in range(2):
            assert ask(server, tmp_path, questions(1)).answered == 1
        assert len(server.asked) == 1
    (row,) = kept(tmp_path).values()
    assert row["finish"] == finish
    assert Reply(**row).failed == failed


def test_an_endpoint_that_is_down_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_TRIES", 2)
    with Server(lambda body, times: error("broken", 500)) as server:
        outcome = ask(server, tmp_path, questions(500), concurrency=2)
        assert "8 requests in a row" in outcome.stopped
        assert outcome.failures["status 500"] >= 8
        assert len(server.asked) < 30
    with pytest.raises(UserError, match="0 of 500 requests are answered and kept"):
        outcome.require_all()
    gone = ask(server, tmp_path, questions(500), concurrency=2)  # nobody listens there any more
    assert "no connection" in gone.stopped


def test_requests_without_an_answer_are_told_and_asked_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_TRIES", 2)
    broken = {"q3", "q7"}

    def behave(body, times):
        return error("broken", 500) if body["messages"][0]["content"] in broken else echo(body, times)

    with Server(behave) as server:
        outcome = ask(server, tmp_path, questions(20))
        assert (outcome.answered, dict(outcome.failures), outcome.stopped) == (18, {"status 500": 2}, "")
        with pytest.raises(UserError, match="2 x status 500"):
            outcome.require_all()
        broken.clear()
        server.asked.clear()
        ask(server, tmp_path, questions(20)).require_all()
        assert sorted(server.asked) == ["q3", "q7"]


# --- the budget -------------------------------------------------------------------------------------------------------


def at_worst(body, times) -> Act:
    """Uses all that a request may use: a token a byte, a long system prompt, every token of the completion."""
    made = completion("x")
    made["usage"] = {"prompt_tokens": len(json.dumps(body["messages"])) + 256, "completion_tokens": body["max_tokens"]}
    return Act(made, delay=0.01)


@pytest.mark.parametrize("behave", [at_worst, lambda body, times: Act(completion("x", usage=False), delay=0.01)])
def test_a_limit_on_tokens_is_never_crossed_and_used_up(tmp_path, behave):
    one = len(json.dumps(questions(1)[0].body["messages"])) + 256 + 50
    with Server(behave) as server:
        outcome = ask(server, tmp_path, questions(10), max_tokens_total=one * 5.5)
        assert (outcome.answered, len(server.asked)) == (5, 5)
        assert "budget" in outcome.stopped
        assert ask(server, tmp_path, questions(10), max_tokens_total=one * 5.5).answered == 5
        assert ask(server, tmp_path, questions(10), max_tokens_total=one * 7.5).answered == 7
        assert len(server.asked) == 7
        assert ask(server, tmp_path, questions(10)).stopped == ""


def test_a_limit_in_dollars(tmp_path):
    used = 100 * 1e-3 + 20 * 1e-2  # of the server's usual usage, at these prices
    settings = {"usd_per_million": ("1000", "10000"), "concurrency": 4}
    with Server(lambda body, times: Act(completion("x"), delay=0.01)) as server:
        outcome = ask(server, tmp_path, questions(50), max_cost_usd=10 * used, **settings)
        assert "budget" in outcome.stopped
        spent = len(server.asked) * used
        worst = (len(json.dumps(questions(1)[0].body["messages"])) + 256) * 1e-3 + 50 * 1e-2
        assert 10 * used - worst < spent <= 10 * used
        with pytest.raises(UserError, match="needs this model's price"):
            ask(server, tmp_path, questions(50), max_cost_usd=1.0)


def test_a_try_whose_answer_was_lost_counts_as_paid(tmp_path):
    one = len(json.dumps(questions(1)[0].body["messages"])) + 256 + 50
    with Server(once(Act(completion("x" * 5000), cut=True))) as server:
        outcome = ask(server, tmp_path, questions(1), max_tokens_total=one * 1.5)
        assert (outcome.answered, len(server.asked)) == (0, 1)
        assert "budget" in outcome.stopped
        outcome = ask(server, tmp_path, questions(1), max_tokens_total=one * 1.5)  # and is not forgotten
        assert (outcome.answered, len(server.asked)) == (0, 1)
        assert ask(server, tmp_path, questions(1), max_tokens_total=one * 2.5).answered == 1


# --- pieces -----------------------------------------------------------------------------------------------------------

settings = st.fixed_dictionaries(
    {"prompt": st.text(max_size=5), "model": st.sampled_from("ab"), "max_tokens": st.integers(1, 3)},
    optional={"temperature": st.sampled_from([0.0, 1.0]), "top_p": st.just(0.9), "sample": st.integers(0, 2)},
)


@given(settings, settings)
def test_a_request_is_named_by_what_shapes_its_answer(one, other):
    one, other = {"sample": 0} | one, {"sample": 0} | other
    assert (chat.request(**one, about=1).id == chat.request(**other, about=2).id) == (one == other)


KEYS = ["choices", "message", "content", "usage", "finish_reason", "prompt_tokens", "model"]
leaves = st.none() | st.booleans() | st.integers() | st.text()


@given(
    st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner), max_leaves=9)
)
def test_any_json_is_a_completion_or_a_value_error(value):
    try:
        reply = chat.read_completion("id", value, Tokens(1, 1), Price(1.0, 2.0))
    except ValueError:
        return
    assert isinstance(value["choices"], list | None)
    assert reply.finish


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": email.utils.formatdate(0, usegmt=True)}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
    ],
)
def test_retry_after(headers, seconds):
    assert client._retry_after(headers) == seconds


def test_retry_after_a_date():
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < client._retry_after({"retry-after": soon}) < 31


def test_openai_itself_gets_the_name_it_wants():
    body = questions(1)[0].body
    theirs, ours = Endpoint().connect(), Endpoint(base_url="http://127.0.0.1:1/v1").connect()
    assert chat.wire(body, theirs) == {"model": "m", "messages": body["messages"], "max_completion_tokens": 50}
    assert chat.wire(body, ours) == body
    sampling = {"temperature": 1.0, "top_p": 1.0}  # which reasoning models refuse to be told
    assert chat.wire(body | sampling, theirs) == chat.wire(body, theirs)
    assert chat.wire(body | sampling, ours) == body | sampling
    assert chat.wire(body | {"temperature": 0.7}, theirs)["temperature"] == 0.7
    asyncio.run(theirs.close())


def test_a_full_disk_is_a_clear_error(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with Server(echo) as server, Appender(tmp_path / "replies.jsonl", Reply) as replies:
        replies._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
        with pytest.raises(UserError, match=r"cannot write .*replies\.jsonl: No space left"):
            Endpoint(base_url=server.url).ask(lambda: iter(questions(3)), replies, lambda *said: True)
