"""The client against a server that misbehaves: every answer kept, nothing asked twice, clear ends."""

import collections
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_server import Act, Server, completion, error, raw

from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import chat, client, losses, response
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


PRICED = {"usd_per_million": ("1000", "1000")}


def test_a_try_whose_answer_was_lost_counts_as_paid_and_is_told_apart(tmp_path):
    one = len(json.dumps(questions(1)[0].body["messages"])) + 256 + 50
    with Server(once(Act(completion("x" * 5000), cut=True))) as server:
        outcome = ask(server, tmp_path, questions(1), max_tokens_total=one * 1.5, **PRICED)
        assert (outcome.answered, len(server.asked)) == (0, 1)
        assert (
            f"the budget has no room for another request; raise --max_cost_usd or --max_tokens_total (${one / 1000:.2f}"
        )
        assert "of it are only booked" in outcome.stopped
        outcome = ask(server, tmp_path, questions(1), max_tokens_total=one * 1.5, **PRICED)  # and is not forgotten
        assert (outcome.answered, len(server.asked)) == (0, 1)
        dry = Endpoint(base_url=server.url, **PRICED).estimate(questions(1), tmp_path / "replies.jsonl")
        assert f"$0.00 paid, at most ${one / 1000:.2f} more booked" in dry
        dry = Endpoint(base_url=server.url, release_bookings=True, **PRICED)
        assert "booked" not in dry.estimate(questions(1), tmp_path / "replies.jsonl")
        outcome = ask(server, tmp_path, questions(1), max_tokens_total=one * 1.5, release_bookings=True, **PRICED)
        assert outcome.answered == 1
    assert [loss.bound for loss in losses.read(tmp_path / "replies.jsonl")] == []


def test_a_lost_try_where_tokens_cost_nothing_is_no_money_and_no_more_than_its_own(tmp_path, capfd):
    with Server(once(Act(completion("x" * 5000), cut=True))) as server:
        assert ask(server, tmp_path, questions(1), max_tokens_total=450).answered == 1
    (loss,) = losses.read(tmp_path / "replies.jsonl")
    assert loss.cost_usd is None
    assert loss.completion_tokens == 50
    assert loss.prompt_tokens < 20
    assert "$" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("first", "billed"),
    [
        (error("slow down", 429), 0),
        (error("broken", 500), 0),
        (Act({"choices": None, "error": {"code": 502, "message": "broken"}}), 0),
        (error("the upstream timed out", 504), None),
        (Act(b"{not json"), None),
        (Act(completion("half", "error", usage=False)), None),
        (Act(completion("half", "error")), 120),
        (Act({"error": {"code": 500}, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}), 10),
        (raw(b""), None),
    ],
)
def test_only_what_may_be_billed_is_counted_and_what_was_reported_is_paid(tmp_path, first, billed):
    with Server(once(first)) as server:
        assert ask(server, tmp_path, questions(1), **PRICED).answered == 1
    noted = losses.read(tmp_path / "replies.jsonl")
    worst = len(json.dumps(questions(1)[0].body["messages"])) + 256 + 50
    assert sum(sum(loss.tokens) for loss in noted) == (worst if billed is None else billed)
    assert all(loss.bound is (billed is None) for loss in noted)
    assert all(loss.reason for loss in noted)


def test_the_costs_of_an_answer_without_a_count_are_a_bound(tmp_path, capfd):
    with Server(lambda body, times: Act(completion("4", usage=False))) as server:
        ask(server, tmp_path, questions(1), **PRICED)
    (row,) = kept(tmp_path).values()
    assert row["bound"]
    assert "$0.00 paid, at most $0.3" in capfd.readouterr().err


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -100_000_000, "completion_tokens": -100_000_000},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
        {"prompt_tokens": "1", "completion_tokens": True},
    ],
)
def test_usage_that_is_none_makes_no_money_and_opens_no_budget(tmp_path, usage):
    one = len(json.dumps(questions(1)[0].body["messages"])) + 256 + 50
    with Server(lambda body, times: Act(completion("4") | {"usage": usage}, delay=0.01)) as server:
        outcome = ask(server, tmp_path, questions(10), max_tokens_total=one * 3.5, **PRICED)
    assert (outcome.answered, len(server.asked)) == (3, 3)


def test_a_file_cannot_make_money(tmp_path):
    row = Reply(id="x", text="t", finish="stop", model="m", prompt_tokens=-(10**9), completion_tokens=0, cost_usd=-99.0)
    (tmp_path / "replies.jsonl").write_text(row.model_dump_json() + "\n")
    with Server(echo) as server:
        assert "budget" in ask(server, tmp_path, questions(10), max_tokens_total=500.0).stopped


@pytest.mark.parametrize("name", ["max_cost_usd", "max_tokens_total", "requests_per_minute", "tokens_per_minute",
                                  "timeout_s", "batch_poll_s", "concurrency"])  # fmt: skip
@pytest.mark.parametrize("value", [float("nan"), -1.0, -1e30])
def test_a_number_that_is_none_is_refused(name, value):
    with pytest.raises(UserError, match=f"--{name}="):
        Endpoint(**{name: value, "usd_per_million": ("1", "1")})


# --- what each failure means ------------------------------------------------------------------------------------------


def asks(questions_: dict[str, Act]):
    """Answers to some questions; the others are echoed."""
    return lambda body, times: questions_.get(body["messages"][0]["content"]) or echo(body, times)


RISK = error("Content Exists Risk", 400)
SIZE = Act(
    {"error": {"code": 400, "type": "exceed_context_size_error", "message": "exceeds the available context size"}}, 400
)
ODD = error("this one I do not like", 400)


@pytest.mark.parametrize(("act", "finish"), [(RISK, "content_filter"), (SIZE, "too_long"), (ODD, "bad_request")])
@pytest.mark.parametrize("where", [0, 7, 19])
@pytest.mark.parametrize("concurrency", [1, 6])
def test_one_question_that_is_refused_is_its_own_failure(tmp_path, act, finish, where, concurrency):
    alone = (
        finish == "bad_request" and where == 0 and concurrency == 1
    )  # nothing was answered before: it may be the set-up
    with Server(asks({f"q{where}": act})) as server:
        if alone:
            with pytest.raises(UserError, match="this one I do not like"):
                ask(server, tmp_path, questions(20), concurrency=1)
            ask(server, tmp_path, questions(19, first=1), concurrency=1)
        outcome = ask(server, tmp_path, questions(20), concurrency=concurrency)
        assert (outcome.answered, outcome.stopped, outcome.failures) == (20, "", {})
        times = collections.Counter(server.asked)
        assert times == {f"q{n}": 1 + (alone and n == 0) for n in range(20)}
        assert ask(server, tmp_path, questions(20)).answered == 20
        assert len(server.asked) == times.total()
    refused = kept(tmp_path)[questions(1, first=where)[0].id]
    assert (refused["finish"], refused["cost_usd"], refused["prompt_tokens"]) == (finish, 0, 0)
    assert Reply(**refused).failed == finish


@pytest.mark.parametrize("act", [RISK, SIZE, ODD])
@pytest.mark.parametrize("concurrency", [1, 4, 32])
def test_what_is_refused_for_all_is_the_set_up_and_nothing_is_kept(tmp_path, act, concurrency):
    with Server(lambda body, times: act) as server:
        for _ in range(2):
            with pytest.raises(UserError, match=server.url):
                ask(server, tmp_path, questions(200), concurrency=concurrency, **PRICED)
        assert len(server.asked) <= 2 * (8 + concurrency if act is not ODD else concurrency)
    assert kept(tmp_path) == {}
    assert losses.read(tmp_path / "replies.jsonl") == []


def test_a_server_that_begins_to_refuse_everything_does_not_fill_the_file(tmp_path):
    def behave(body, times):
        return echo(body, times) if int(body["messages"][0]["content"][1:]) < 10 else error("no model is loaded", 400)

    with (
        Server(behave) as server,
        pytest.raises(UserError, match="8 requests in a row: status 400: no model is loaded"),
    ):
        ask(server, tmp_path, questions(100), concurrency=1)
    assert len(kept(tmp_path)) == 10


def test_many_long_questions_in_a_row_are_their_own_failures(tmp_path):
    with Server(asks({f"q{n}": SIZE for n in range(1, 21)})) as server:
        assert ask(server, tmp_path, questions(22), concurrency=1).answered == 22
        assert len(server.asked) == 22


TAKES = {"max_completion_tokens", "model", "messages"}


def picky(body, times) -> Act:
    """As a reasoning model behind a gateway: it names one parameter after the other."""
    for name in body:
        if name not in TAKES:
            return error(f"Unsupported parameter: '{name}' is not supported with this model.", 400)
    return echo(body, times)


def test_parameters_that_are_refused_are_learnt_once(tmp_path, capfd):
    with Server(picky) as server:
        where = Endpoint(base_url=server.url, concurrency=1)
        with Appender(tmp_path / "replies.jsonl", Reply) as replies:
            for count in (3, 20):  # as --until_correct asks, in rounds
                asked = questions(count, temperature=0.5, top_p=0.9, seed=3)
                assert where.ask(lambda asked=asked: iter(asked), replies, lambda *said: True).answered == count
        assert len(server.asked) == 20 + 4
        assert server.bodies[-1].keys() == TAKES
        assert server.bodies[-1]["max_completion_tokens"] == 50
    said = capfd.readouterr().err
    for name in ("max_tokens", "temperature", "top_p", "seed"):
        assert said.count(f"does not take {name}:") == 1


def test_parameters_are_learnt_by_many_at_once(tmp_path, capfd):
    with Server(picky) as server:
        assert ask(server, tmp_path, questions(40, temperature=0.5), concurrency=8, **PRICED).answered == 40
        assert len(server.asked) <= 40 + 2 * 8
    assert capfd.readouterr().err.count("does not take temperature:") == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405, 402, 501, 301, 308])
def test_the_set_up_ends_the_run_at_once_in_the_endpoints_words(tmp_path, status):
    act = Act({"error": {"message": "words of theirs"}}, status, {"location": "https://elsewhere/v1"})
    with Server(lambda body, times: act) as server, pytest.raises(UserError, match=server.url) as raised:
        ask(server, tmp_path, questions(100), concurrency=4)
    assert len(server.asked) <= 4
    assert ("https://elsewhere/v1" if status < 400 else "words of theirs") in str(raised.value)


def test_a_web_page_is_no_api(tmp_path):
    page = Act(b"<!doctype html><title>Chat</title>", 200, {"content-type": "text/html"})
    with Server(lambda body, times: page) as server, pytest.raises(UserError, match=r"web page.*see --base_url"):
        ask(server, tmp_path, questions(100), concurrency=4, **PRICED)
    assert len(server.asked) <= 4
    assert losses.read(tmp_path / "replies.jsonl") == []
    with Server(
        lambda body, times: page if times == 1 and body["messages"][0]["content"] == "q9" else echo(body, times)
    ) as server:
        assert ask(server, tmp_path, questions(20), concurrency=1).answered == 20  # a page in between passes


def test_a_time_out_is_tried_with_a_longer_limit_and_named(tmp_path, capfd):
    slow = {"q1": Act(completion("late"), delay=0.5), "q2": Act(completion("never"), delay=9.0)}
    with Server(asks(slow)) as server:
        outcome = ask(server, tmp_path, questions(4), timeout_s=0.2, concurrency=4)
        times = collections.Counter(server.asked)
    assert outcome.answered == 3
    assert (times["q1"], times["q2"]) == (3, 3)
    assert list(outcome.failures) == ["no answer within 0.8 s (--timeout_s=0.2, doubled at each try)"]
    assert "no answer within 0.2 s (--timeout_s=0.2" in capfd.readouterr().err


def test_a_server_that_never_answers_in_time_ends_the_run_at_the_first_question(tmp_path):
    with Server(lambda body, times: Act(completion("late"), delay=9.0)) as server:
        outcome = ask(server, tmp_path, questions(50), timeout_s=0.1, concurrency=2)
        assert "no answer within 0.4 s (--timeout_s=0.1" in outcome.stopped
        assert len(server.asked) <= 6


def test_nobody_listens_there(tmp_path, capfd):
    with Server(echo) as server:
        pass
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"{server.url}: no connection.*nothing was asked; see --base_url"):
        ask(server, tmp_path, questions(500), **PRICED)
    assert time.monotonic() - started < 5
    assert f"{server.url}: no connection" in capfd.readouterr().err
    assert losses.read(tmp_path / "replies.jsonl") == []


def test_a_first_failure_is_printed_at_once_and_all_are_counted(tmp_path, capfd):
    with Server(once(error("broken", 500))) as server:
        ask(server, tmp_path, questions(6), concurrency=2)
        said = capfd.readouterr().err
        assert said.count(f"{server.url}: status 500: broken") == 1
    assert "6 failed tries" in said


def test_who_answered_is_kept_and_a_difference_is_said_once(tmp_path, capfd):
    with Server(echo) as server:
        ask(server, tmp_path, questions(10))
    assert {row["model"] for row in kept(tmp_path).values()} == {"served"}
    assert capfd.readouterr().err.count("m was asked for; served answers") == 1
    with Server(lambda body, times: Act(completion("4", model="\x1b[31mred\nline"))) as server:
        ask(server, tmp_path, questions(1, first=99))
    assert "m was asked for; [31mred line answers" in capfd.readouterr().err
    with Server(lambda body, times: Act(completion("4", model="m"))) as server:
        ask(server, tmp_path, questions(10, first=10))
    assert "was asked for" not in capfd.readouterr().err


def test_a_short_key_does_not_garble_what_is_said(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with (
        Server(lambda body, times: error("max_tokens of k is unknown: k", 400)) as server,
        pytest.raises(UserError, match=r"max_tokens of \[key\] is unknown: \[key\]"),
    ):
        ask(server, tmp_path, questions(1))


def test_no_file_holds_the_key(tmp_path):
    def behave(body, times):
        return Act(completion(f"your key is {KEY}", "stop" if times > 1 else "error", model=KEY))

    with Server(behave) as server:
        ask(server, tmp_path, questions(3))
    for path in tmp_path.iterdir():
        assert KEY not in path.read_text(), path


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
        return error(says, 503) if len(asked) <= 20 else Act(completion("4"), delay=0.1)

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


def test_a_full_disk_is_a_clear_error(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with Server(echo) as server, Appender(tmp_path / "replies.jsonl", Reply) as replies:
        replies._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
        with pytest.raises(UserError, match=r"cannot write .*replies\.jsonl: No space left"):
            Endpoint(base_url=server.url).ask(lambda: iter(questions(3)), replies, lambda *said: True)
