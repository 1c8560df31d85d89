"""The client's budget: limits are never crossed, and what may have been billed counts."""

import json

import pytest

from lema_jax.errors import UserError
from lema_jax.teacher import losses, wire
from lema_jax.teacher.chat import Reply
from lema_jax.teacher.endpoint import Endpoint
from tests.teacher.asking import PRICED, ask, at_worst, echo, kept, once, questions
from tests.teacher.wire_server import Act, Server, completion, error, raw

pytestmark = pytest.mark.usefixtures("client_environment")


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


def test_a_try_whose_answer_was_lost_counts_as_paid_and_is_told_apart(tmp_path):
    one = len(json.dumps(questions(1)[0].body["messages"])) + 256 + 50
    with Server(once(Act(completion("x" * 5000), cut=True))) as server:
        outcome = ask(server, tmp_path, questions(1), max_tokens_total=one * 1.5, **PRICED)
        assert (outcome.answered, len(server.asked)) == (0, 1)
        assert f"the budget has no room for another request; raise max_cost_usd or max_tokens_total (${one / 1000:.2f}"
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


def test_an_answer_that_is_too_large_is_a_failed_try_that_is_booked(tmp_path, monkeypatch):
    monkeypatch.setattr(wire, "LARGEST", 1000)
    with Server(lambda body, times: Act(completion("x" * 1000))) as server:
        outcome = ask(server, tmp_path, questions(1), **PRICED)
        assert (outcome.answered, len(server.asked)) == (0, 3)
        assert "an answer of more than" in next(iter(outcome.failures))
    assert [loss.bound for loss in losses.read(tmp_path / "replies.jsonl")] == [True] * 3
    assert kept(tmp_path) == {}


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
