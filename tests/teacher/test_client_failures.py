"""What each failure of an endpoint means to the client: for one question, for the run, for the user."""

import collections
import contextlib
import time

import pytest

from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import client, losses
from lema_jax.teacher.chat import Reply
from lema_jax.teacher.endpoint import Endpoint
from tests.teacher.asking import KEY, PRICED, ask, echo, kept, once, questions
from tests.teacher.wire_server import Act, Server, completion, error

pytestmark = pytest.mark.usefixtures("client_environment")


def asks(questions_: dict[str, Act]):
    """Answers to some questions; the others are echoed."""
    return lambda body, times: questions_.get(body["messages"][0]["content"]) or echo(body, times)


RISK = error("Content Exists Risk", 400)


SIZE = Act(
    {"error": {"code": 400, "type": "exceed_context_size_error", "message": "exceeds the available context size"}}, 400
)


ODD = error("this one I do not like", 400)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("act", "asked"),
    [
        (error("Moderation service is temporarily unavailable. Please retry.", 503, retry_after="0"), 16),
        (error("Failed to call moderation endpoint: timeout", 500), 16),
        (error("Your account was flagged for unusual activity and is suspended", 403), 1),
        (error("Your input was flagged", 403), 32),  # an account that is cut off may be told no more
    ],
)
def test_what_befalls_all_questions_is_no_failure_of_theirs(tmp_path, monkeypatch, act, asked):
    monkeypatch.setattr(client, "_TRIES", 2)
    good = {f"q{n}": echo({"messages": [{"content": f"q{n}"}]}, 1) for n in range(10)}
    with Server(lambda body, times: good.get(body["messages"][0]["content"]) or act) as server:
        for answered in (10, 0):
            server.asked.clear()
            with contextlib.suppress(UserError):
                assert ask(server, tmp_path, questions(100), concurrency=1).stopped
            assert len(server.asked) == answered + asked
            assert len(kept(tmp_path)) == 10


def test_filtered_questions_in_a_row_are_their_own_failures(tmp_path):
    with Server(asks({f"q{n}": RISK for n in range(1, 31)})) as server:
        assert ask(server, tmp_path, questions(32), concurrency=1).answered == 32
        assert len(server.asked) == 32


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
