"""The client against a server that misbehaves: every answer kept, nothing asked twice, clear ends."""

import asyncio
import collections
import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import disk, records
from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import chat, client, losses, raw_responses, response
from lema_jax.teacher.chat import Reply
from lema_jax.teacher.endpoint import Endpoint
from lema_jax.teacher.raw_responses import RawResponse
from tests.teacher.asking import KEY, PRICED, ask, echo, kept, once, questions
from tests.teacher.wire_server import Act, Server, completion, error, raw

pytestmark = pytest.mark.usefixtures("client_environment")


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


@pytest.mark.slow
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
        error("the upstream timed out", 524),
        Act({"choices": None, "error": {"code": 502, "message": "the provider went away"}}),
        Act({"error": {"code": 429, "message": "slow down"}}),
        Act({"object": "something else"}),
        Act([]),
        Act(completion("x") | {"choices": []}),
        Act(completion("half a te", "error")),
        Act(completion("half a te", "insufficient_system_resource")),
        Act(completion("half a te", None)),
        Act({"choices": [{"message": {"content": ["parts"]}}]}),
        Act(b"[" * 200_000),
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"),
        Act(completion("x" * 5000), cut=True),
        Act(completion("late"), delay=0.3),
    ],
    ids=lambda act: f"{act.status}-{str(act.body)[:12]}{'-cut' * act.cut}{'-slow' * bool(act.delay)}",
)
def test_passing_troubles_are_tried_again(tmp_path, first):
    with Server(once(first)) as server:
        outcome = ask(server, tmp_path, questions(6), timeout_s=0.15 if first.delay else 5.0, concurrency=3)
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
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert KEY not in str(raised.value) + out + err + written


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
        (Act(completion(None)), "empty", "empty"),
        (Act(completion("<think>It is 5", "stop")), "stop", "length"),
        (Act(completion("It is 5.</think>", "stop")), "stop", "empty"),
        (Act(completion(None, "length", reasoning_content="It is 5")), "length", "length"),
        (Act(completion(None, refusal="I will not.")), "refusal", "refusal"),
        (Act(completion(None, "tool_calls")), "tool_calls", "tool_calls"),
        (Act({"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}), "content_filter", "content_filter"),
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
        assert server.url in outcome.stopped
        assert outcome.failures["status 500: broken"] >= 8
        assert len(server.asked) < 30
    with pytest.raises(UserError, match="0 of 500 requests are answered and kept"):
        outcome.require_all()


def test_requests_without_an_answer_are_told_and_asked_again_later(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_TRIES", 2)
    broken = {"q3", "q7"}

    def behave(body, times):
        return error("broken", 500) if body["messages"][0]["content"] in broken else echo(body, times)

    with Server(behave) as server:
        outcome = ask(server, tmp_path, questions(20))
        assert (outcome.answered, dict(outcome.failures), outcome.stopped) == (18, {"status 500: broken": 2}, "")
        with pytest.raises(UserError, match="2 x status 500: broken"):
            outcome.require_all()
        broken.clear()
        server.asked.clear()
        ask(server, tmp_path, questions(20)).require_all()
        assert sorted(server.asked) == ["q3", "q7"]


# --- how many at once -------------------------------------------------------------------------------------------------


def test_it_starts_low_where_no_price_is_known_and_grows(tmp_path):
    slow = lambda body, times: Act(completion("4"), delay=0.4)
    with Server(slow) as server:
        ask(server, tmp_path, questions(4), concurrency=32)
        assert server.most_in_flight <= 4
        ask(server, tmp_path, questions(60, first=4), concurrency=32)
        assert 6 < server.most_in_flight < 32
    with Server(slow) as server:
        ask(server, tmp_path, questions(40, first=500), concurrency=32, **PRICED)
        assert server.most_in_flight > 16


@pytest.mark.parametrize("says", ["Loading model", "Service Unavailable"])
def test_a_server_that_was_not_up_yet_is_not_taken_for_a_crowded_one(tmp_path, says):
    asked = []

    def behave(body, times):
        asked.append(times)
        return error(says, 503) if len(asked) <= 20 else Act(completion("4"), delay=0.5)  # all 8 meet on a busy machine

    with Server(behave) as server:
        outcome = ask(server, tmp_path, questions(24), concurrency=8, **PRICED)
        assert (outcome.answered, outcome.failures) == (24, {})
        assert server.most_in_flight == 8


def test_a_server_of_few_slots_is_not_flooded_for_ever(tmp_path):
    """Requests wait in its queue until they time out: then fewer are sent at once."""
    free_at = [0.0, 0.0]

    def behave(body, times):
        slot = free_at.index(min(free_at))
        free_at[slot] = max(free_at[slot], time.monotonic()) + 0.05
        return Act(completion("4"), delay=free_at[slot] - time.monotonic())

    with Server(behave) as server:
        outcome = ask(server, tmp_path, questions(60), concurrency=32, timeout_s=0.4)
        assert (outcome.answered, outcome.failures) == (60, {})
        assert len(server.asked) < 120


# --- what came is on the disk before it is judged ---------------------------------------------------------------------


def test_what_came_is_kept_as_it_came(tmp_path):
    odd = json.dumps(completion("\ud83d 4", model="\ud83d")).encode() + b"  \xff"
    with Server(once(Act(odd))) as server:
        assert ask(server, tmp_path, questions(2), concurrency=1).answered == 2
    bodies = [json.loads(line)["body"] for line in (tmp_path / "replies.raw.jsonl").read_text().splitlines()]
    assert len(bodies) == 4
    assert bodies[0] == odd.decode(errors="replace")


def test_a_reply_with_half_a_character_is_kept_and_its_neighbours_too(tmp_path):
    with Server(lambda body, times: Act(completion("4 \ud83d", model="\udc00"), delay=0.01)) as server:
        assert ask(server, tmp_path, questions(20)).answered == 20
        assert ask(server, tmp_path, questions(20)).answered == 20
        assert len(server.asked) == 20
    assert {row["text"] for row in kept(tmp_path).values()} == {"4 \ufffd"}


def test_an_answer_that_came_and_was_not_judged_is_not_asked_for_again(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*args):
        raise Killed

    with Server(echo) as server:
        with monkeypatch.context() as patch:
            patch.setattr(response, "read", killed)
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(1), concurrency=1)
        assert len(server.asked) == 1
        assert kept(tmp_path) == {}
        outcome = ask(server, tmp_path, questions(1), lambda request, reply: reply.text == "re q0")
        assert (outcome.answered, outcome.right, len(server.asked)) == (1, 1, 1)


# --- pieces -----------------------------------------------------------------------------------------------------------


settings = st.fixed_dictionaries(
    {"prompt": st.text(max_size=5), "model": st.sampled_from("ab"), "max_tokens": st.integers(1, 3)},
    optional={"temperature": st.sampled_from([0.0, 1.0]), "top_p": st.just(0.9), "sample": st.integers(0, 2)},
)


@given(settings, settings)
def test_a_request_is_named_by_what_shapes_its_answer(one, other):
    one, other = {"sample": 0} | one, {"sample": 0} | other
    assert (chat.request(**one, about=1).id == chat.request(**other, about=2).id) == (one == other)


@pytest.mark.parametrize(
    "setting",
    [
        *({name: value} for name in ("temperature", "top_p") for value in (float("nan"), float("inf"), -1.0)),
        {"max_tokens": 0}, {"max_tokens": -1}, {"max_tokens": 10**400}, {"model": "m\udcff"},
    ],
)  # fmt: skip
def test_what_no_request_may_hold(setting):
    with pytest.raises(UserError):
        chat.request("q", **{"model": "m", "max_tokens": 5} | setting)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with Server(echo) as server, Appender(tmp_path / "replies.jsonl", Reply) as replies:
        replies._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
        with pytest.raises(OSError, match="No space left") as raised:
            Endpoint(base_url=server.url).ask(lambda: iter(questions(3)), replies, lambda *said: True)
        assert str(disk.explain(raised.value, None)).startswith(f"{tmp_path}/replies.jsonl: No space left")


@pytest.mark.parametrize("full", ["replies.raw.jsonl", "replies.jsonl"])
def test_what_a_full_disk_did_not_take_is_booked_and_no_success(tmp_path, monkeypatch, full):
    append, right = Appender.append, []

    def until_full(self, *rows):
        if self.path.name == full and len(self.rows) + len(rows) > 3:
            raise OSError(28, "No space left on device", full)
        append(self, *rows)

    slow = lambda body, times: Act(completion("4"), delay=0.05)
    with Server(slow) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Appender, "append", until_full)
            with pytest.raises(OSError, match=full):
                ask(server, tmp_path, questions(8), lambda request, reply: right.append(request.id) or True, **PRICED)
        assert len(server.asked) == 8
        assert sorted(right) == sorted(kept(tmp_path))
        assert sum(loss.bound for loss in losses.read(tmp_path / "replies.jsonl")) == 1  # all that was in flight
        assert ask(server, tmp_path, questions(8), **PRICED).answered == 8
        assert len(server.asked) == (8 if full == "replies.jsonl" else 16 - len(right))
        assert sum(loss.bound for loss in losses.read(tmp_path / "replies.jsonl")) == 1


def test_rows_that_are_written_together_fail_together(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    async def append(rows):
        group = raw_responses.GroupCommit(file)
        return await asyncio.gather(*map(group.append, rows), return_exceptions=True)

    rows = [RawResponse(id=str(number), body="x") for number in range(8)]
    with Appender(tmp_path / "raw.jsonl", RawResponse) as file:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            failed = asyncio.run(append(rows))
        assert [getattr(error, "filename", "saved") for error in failed] == [str(file.path)] * 8
        assert asyncio.run(append(rows)) == [None] * 8
    assert len(list(records.read(tmp_path / "raw.jsonl", RawResponse))) == 8
