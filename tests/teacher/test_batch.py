"""The Batch API against a server that does part of the work, expires, refuses, and is left alone in the middle."""

import collections
import json

import pytest

from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import batch, batch_rows
from lema_jax.teacher.chat import Outcome
from lema_jax.teacher.endpoint import Endpoint
from tests.teacher.batching import Killed, ask, echo, kept, killed, questions
from tests.teacher.wire_server import Act, Server, completion, error

pytestmark = pytest.mark.usefixtures("batch_environment")


@pytest.mark.slow
def test_all_answers_come_back_to_their_questions(tmp_path):
    with Server(echo) as server:
        assert ask(server, tmp_path, questions(30)) == Outcome(30, 30, 30)
        assert len(server.batches) == 1
        assert ask(server, tmp_path, questions(30)) == Outcome(30, 30, 30)
        assert len(server.asked) == 30
        ask(server, tmp_path, questions(33))
        assert collections.Counter(server.asked) == dict.fromkeys((f"q{n}" for n in range(33)), 1)
    names = {path.name for path in tmp_path.iterdir()}
    assert {name for name in names if "batch-" not in name} == {"replies.batches.jsonl", "replies.jsonl"}
    assert len(names) == 2 + 2  # the output of each batch, as it came; nothing was lost, so no file says so


@pytest.mark.parametrize(("most", "bytes_", "parts"), [(7, 10**9, 5), (100, 700, 8)])
def test_input_files_stay_within_the_limits(tmp_path, monkeypatch, most, bytes_, parts):
    monkeypatch.setattr(batch, "MOST_REQUESTS", most)
    monkeypatch.setattr(batch, "MOST_BYTES", bytes_)
    with Server(echo) as server:
        assert ask(server, tmp_path, questions(30)).answered == 30
        inputs = [server.files[b["input_file_id"]] for b in server.batches.values()]
    assert len(inputs) == parts
    assert all(len(part) <= bytes_ and len(part.splitlines()) <= most for part in inputs)
    asked = [json.loads(line)["body"]["messages"][0]["content"] for part in inputs for line in part.splitlines()]
    assert asked == [f"q{n}" for n in range(30)]


def test_a_request_larger_than_any_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "MOST_BYTES", 10)
    with Server(echo) as server, pytest.raises(UserError, match="more than a batch may have"):
        ask(server, tmp_path, questions(1))


def test_an_expired_batch_gives_what_it_finished_and_the_rest_is_submitted_again(tmp_path):
    with Server(echo, finished=4, batch_end="expired") as server:
        assert ask(server, tmp_path, questions(10)) == Outcome(10, 10, 10)
        assert len(server.batches) == 3
        assert collections.Counter(server.asked) == dict.fromkeys((f"q{n}" for n in range(10)), 1)


def test_a_batch_that_expires_untouched_ends_the_run(tmp_path):
    with Server(echo, finished=0, batch_end="expired") as server:
        outcome = ask(server, tmp_path, questions(10))
        assert len(server.batches) == 1
        with pytest.raises(UserError, match=r"0 of 10 .*10 x batch_expired"):
            outcome.require_all()
        server.finished = None
        assert ask(server, tmp_path, questions(10)).answered == 10


def test_failed_lines_are_counted_kept_apart_and_asked_again(tmp_path):
    said = {
        "q1": error("broken", 500),
        "q2": Act({"object": "nonsense"}),
        "q3": error("maximum context length is 9", 400, "context_length_exceeded"),
        "q4": Act(b"no json"),
    }

    def behave(body, times):
        question = body["messages"][0]["content"]
        return said[question] if question in said and times == 1 else echo(body, times)

    with Server(behave) as server:
        outcome = ask(server, tmp_path, questions(8))
        assert (outcome.answered, outcome.right, outcome.failures) == (8, 7, {})
        assert len(server.batches) == 2
        again = [json.loads(line) for line in server.files[server.batches["batch_1"]["input_file_id"]].splitlines()]
        assert [line["body"]["messages"][0]["content"] for line in again] == ["q1", "q2", "q4"]


def test_a_line_that_always_fails_is_told(tmp_path):
    def behave(body, times):
        return error("broken", 500, "server_error") if body["messages"][0]["content"] == "q1" else echo(body, times)

    with Server(behave) as server:
        outcome = ask(server, tmp_path, questions(5))
    assert (outcome.answered, dict(outcome.failures)) == (4, {"status 500: broken": 1})


def test_a_batch_that_fails_validation_is_a_clear_error_and_no_dead_end(tmp_path):
    with Server(echo, batch_end="failed") as server:
        with pytest.raises(UserError, match="did not accept batch batch_0: line 1 is no request"):
            ask(server, tmp_path, questions(5))
        server.batch_end = "completed"
        assert ask(server, tmp_path, questions(5)).answered == 5


def test_a_run_that_ended_while_it_waited_takes_its_batches_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "MOST_REQUESTS", 10)
    with Server(echo) as server:
        with monkeypatch.context() as patch:
            patch.setattr(batch.Batches, "_end_of", killed)
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(20))
        assert len(server.batches) == 2
        assert ask(server, tmp_path, questions(20)).answered == 20
        assert len(server.batches) == 2


@pytest.mark.parametrize("submitted", [True, False])
def test_a_run_killed_before_it_could_note_its_batch(tmp_path, monkeypatch, submitted):
    """Whether the endpoint got the batch is then found out from the endpoint."""
    with Server(echo) as server:
        with monkeypatch.context() as patch:
            patch.setattr(batch.Batches, "_end_of", killed)
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(20))
        notes = tmp_path / "replies.batches.jsonl"
        lines = notes.read_text().splitlines(keepends=True)
        assert "submitted/batch_0" in lines[1]
        notes.write_text(lines[0])
        if not submitted:
            server.batches.clear()
        assert ask(server, tmp_path, questions(20)).answered == 20
        assert len(server.batches) == 1


def test_a_run_killed_while_it_took_answers_in(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_rows, "_ROWS_A_WRITE", 3)
    append = Appender.append

    def killed_later(self, *rows):
        append(self, *rows)
        if len(self.rows) == 9:
            raise Killed

    with Server(echo) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Appender, "append", killed_later)
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(20))
        assert len(kept(tmp_path)) == 9
        assert ask(server, tmp_path, questions(20)).answered == 20
        assert len(server.asked) == 20
    assert len(kept(tmp_path)) == 20


def test_the_budget_bounds_what_is_submitted(tmp_path):
    one = len(json.dumps(questions(1)[0].body["messages"])) + 256 + 50
    with Server(lambda body, times: Act(completion("x", usage=False))) as server:
        outcome = ask(server, tmp_path, questions(10), max_tokens_total=one * 4.5)
        assert (outcome.answered, len(server.asked)) == (4, 4)
        assert "budget" in outcome.stopped


def test_a_batch_costs_half(tmp_path):
    endpoint = Endpoint(batch=True)
    assert endpoint.price("gpt-4o") == (1.25, 5.0)
    assert Endpoint().price("gpt-4o") == (2.5, 10.0)
    assert endpoint.price("unknown") is None


def test_a_bad_key_is_a_clear_error(tmp_path):
    with Server(echo, key="another") as server, pytest.raises(UserError, match="Incorrect API key") as raised:
        ask(server, tmp_path, questions(3))
    assert "sk-secret" not in str(raised.value)


def test_nobody_there_is_a_clear_error(tmp_path):
    with Server(echo) as server:
        pass
    with pytest.raises(UserError, match="The same command goes on from here"):
        ask(server, tmp_path, questions(3))
