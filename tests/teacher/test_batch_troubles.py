"""The Batch API as real endpoints have it: lines that cannot be read, files that are gone, answers lost."""

import contextlib
import dataclasses
import json

import pytest

from lema_jax.errors import UserError
from lema_jax.records import Appender
from lema_jax.teacher import batch, losses, wire
from lema_jax.teacher.chat import Outcome, Reply
from lema_jax.teacher.endpoint import Endpoint
from tests.teacher.batching import ONE, PRICED, Killed, ask, booked, echo, kept, killed, questions
from tests.teacher.wire_server import Act, Server, completion, error, raw

pytestmark = pytest.mark.usefixtures("batch_environment")


def test_lines_end_at_a_line_feed_alone(tmp_path):
    odd = "a\u2028b\u2029c\u0085d\x0be\x0cf\rg"
    with Server(lambda body, times: Act(completion(odd))) as server:
        assert ask(server, tmp_path, questions(5)).answered == 5
        assert len(server.batches) == 1
    assert set(kept(tmp_path).values()) == {odd}


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2] + b"\n",
        lambda line: b"[" * 100_000 + b"\n",
        lambda line: b"\xff\xfe\n",
        lambda line: b"4\n",
        lambda line: line.replace(b"re q0", b"x" * wire.LARGEST),
    ],
)
def test_a_line_that_cannot_be_read_counts_as_spent_once_and_its_bytes_are_kept(tmp_path, damage):
    harmed = lambda lines: b"".join([damage(lines[0]), *lines[1:]])
    with Server(echo, write=harmed) as server:
        outcome = ask(server, tmp_path, questions(1), **PRICED)
        assert outcome.answered == 0
        assert "a malformed line" in next(iter(outcome.failures))
        assert booked(tmp_path) == ONE
        server.write = b"".join
        assert ask(server, tmp_path, questions(4), **PRICED).answered == 4
        assert len(server.batches) == 2
    assert booked(tmp_path) == ONE
    outputs = [path.read_bytes() for path in tmp_path.glob("replies.batch-*.jsonl")]
    assert sum(output.count(b"\n") for output in outputs) == 5


def test_a_run_killed_after_it_counted_a_line_counts_it_once(tmp_path, monkeypatch):
    harmed = lambda lines: b"no json\n" + b"".join(lines[1:])
    with Server(echo, write=harmed) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Appender, "append", killed_at_a_reply(Appender.append))
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(4), **PRICED)
        assert booked(tmp_path) > 0
        server.write = b"".join
        assert ask(server, tmp_path, questions(4), **PRICED).answered == 4
    assert booked(tmp_path) == ONE


def killed_at_a_reply(append):
    def killed(self, *rows):
        if any(isinstance(row, Reply) for row in rows):
            raise Killed
        append(self, *rows)

    return killed


def test_a_batch_that_is_gone_is_said_counted_and_submitted_again(tmp_path, monkeypatch, capfd):
    with Server(echo) as server:
        with monkeypatch.context() as patch:
            patch.setattr(batch.Batches, "_end_of", killed)
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(3), **PRICED)
        server.gone = {"batch_0"}
        assert ask(server, tmp_path, questions(3), **PRICED).answered == 3
        assert list(server.batches) == ["batch_0", "batch_1"]
        assert "batch_0: the endpoint has no such batch any more" in capfd.readouterr().err
        assert booked(tmp_path) == 3 * ONE
        assert ask(server, tmp_path, questions(3), **PRICED).answered == 3
        assert len(server.batches) == 2
    assert booked(tmp_path) == 3 * ONE


def test_an_output_that_is_gone_is_said_counted_and_submitted_again(tmp_path, capfd):
    with Server(echo) as server:
        server.gone = {"file-1"}
        outcome = ask(server, tmp_path, questions(3), **PRICED)
        assert (outcome.answered, len(server.batches)) == (0, 1)
        assert "its output file-1 is gone" in next(iter(outcome.failures))
        assert ask(server, tmp_path, questions(3), **PRICED).answered == 3
        assert "its output file-1 is gone" in capfd.readouterr().err
    assert booked(tmp_path) == 3 * ONE


def test_a_batch_of_another_address_is_not_forgotten(tmp_path, monkeypatch):
    with Server(echo) as server:
        with monkeypatch.context() as patch:
            patch.setattr(batch.Batches, "_end_of", killed)
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(3))
        with Server(echo) as other, pytest.raises(UserError, match=f"batch_0 was submitted to {server.url}"):
            ask(other, tmp_path, questions(3))
        assert not other.batches
        assert ask(server, tmp_path, questions(3)).answered == 3


@pytest.mark.parametrize("end", ["completed", "cancelled", "expired"])
def test_a_batch_without_any_file_ends_the_run_and_is_told(tmp_path, end, monkeypatch):
    monkeypatch.setattr(Server, "_do", lambda self, batch: batch.update(status=end))
    with Server(echo) as server:
        outcome = ask(server, tmp_path, questions(3))
        assert (outcome.answered, list(outcome.failures)) == (0, [f"batch batch_0 is {end} and gave no file"])
        assert len(server.batches) == 1
        ask(server, tmp_path, questions(3))
        assert len(server.batches) == 2


def test_a_server_without_a_batch_api(tmp_path):
    with (
        Server(echo, batch_api=False) as server,
        pytest.raises(UserError, match=r"has no Batch API.*leave --batch out"),
    ):
        ask(server, tmp_path, questions(3))
    with Server(echo) as server:  # and one that answers a web page to everything
        server.handle = lambda *asked: Act(b"<html>", 200, {"content-type": "text/html"})
        with pytest.raises(UserError, match=r"has no Batch API.*leave --batch out"):
            ask(server, tmp_path, questions(3))


def test_rows_that_answer_nothing_of_ours_or_twice(tmp_path):
    stray = {"id": "r", "error": None, "response": {"status_code": 200, "body": completion("stray")}}

    def write(lines):
        more = [{"custom_id": id} | stray for id in ("a stranger's", 4, None, ["x"], {})] + [stray, [], 4, None]
        return b"".join([*lines, *lines, *(json.dumps(row).encode() + b"\n" for row in more), b"\n \n"])

    with Server(echo, write=write) as server:
        assert ask(server, tmp_path, questions(3), **PRICED) == Outcome(
            3, 3, 3, {"a line that answers no request of ours": 6, "a malformed line (no JSON object)": 3}
        )
    assert set(kept(tmp_path).values()) == {"re q0", "re q1", "re q2"}


def test_answers_to_what_an_earlier_command_asked_are_kept(tmp_path, monkeypatch):
    with Server(echo) as server:
        with monkeypatch.context() as patch:
            patch.setattr(batch.Batches, "_end_of", killed)
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(9))
        assert ask(server, tmp_path, questions(2)).answered == 2
        assert ask(server, tmp_path, questions(9)).answered == 9
        assert len(server.batches) == 1


def test_rows_are_judged_as_responses_are(tmp_path):
    said = {
        "q1": Act({"choices": None, "error": {"code": 502, "message": "broken"}}),
        "q2": Act(completion("half", "error")),
        "q3": error("Content Exists Risk", 400),
        "q4": Act(completion([{"type": "text", "text": "re q4"}, {"type": "thinking", "thinking": "no"}])),
        "q5": Act(completion("4 \ud83d")),
        "q6": error("this one I do not like", 400),
    }

    def behave(body, times):
        return said.get(body["messages"][0]["content"]) or echo(body, times)

    with Server(behave) as server:
        outcome = ask(server, tmp_path, questions(7))
        assert dict(outcome.failures) == {"status 502: broken": 1, 'an incomplete answer: finish_reason "error"': 1}
    rows = [Reply(**json.loads(line)) for line in (tmp_path / "replies.jsonl").read_bytes().splitlines()]
    found = {row.id: (row.text, row.failed) for row in rows}
    assert [found.get(request.id) for request in questions(7)] == [
        ("re q0", ""), None, None, ("", "content_filter"), ("re q4", ""), ("4 \ufffd", ""), ("", "bad_request")
    ]  # fmt: skip
    assert sum(sum(loss.tokens) for loss in losses.read(tmp_path / "replies.jsonl") if not loss.bound) == 120 * 2


def test_parameters_that_are_refused_are_learnt_from_rows(tmp_path):
    def behave(body, times):
        if "max_tokens" in body:
            return error("Unsupported parameter: 'max_tokens' is not supported with this model.", 400)
        return echo(body, times)

    with Server(behave) as server:
        assert ask(server, tmp_path, questions(3)).answered == 3
        assert len(server.batches) == 2


def test_a_download_that_breaks_is_a_clear_error_and_goes_on(tmp_path):
    with Server(echo) as server:
        handle = server.handle
        server.handle = lambda method, path, *rest: dataclasses.replace(
            handle(method, path, *rest), cut=path.startswith("/v1/files/")
        )
        with pytest.raises(UserError, match="The same command goes on from here"):
            ask(server, tmp_path, questions(30))
        server.handle = handle
        assert ask(server, tmp_path, questions(30)).answered == 30
        assert len(server.batches) == 1


def test_an_id_of_a_file_is_no_path(tmp_path, monkeypatch):
    make = Server._file

    def crooked(self, content, purpose):
        made = make(self, content, purpose)
        self.files["%2e%2e"] = content
        return made | ({"id": "../../x"} if purpose == "batch_output" else {})

    monkeypatch.setattr(Server, "_file", crooked)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with Server(echo) as server:
        server.handle = lambda method, path, *rest, handle=server.handle: (
            Act(server.files["file-1"]) if "x/content" in path else handle(method, path, *rest)
        )
        with contextlib.suppress(UserError):
            ask(server, folder, questions(1))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def lose_the_answer_to_submission(server: Server, number: int) -> None:
    """The connection breaks where the endpoint answers that it has the batch, the `number`-th from 1."""
    handle = server.handle

    def behave(method, path, *rest):
        act = handle(method, path, *rest)
        lost = (method, path) == ("POST", "/v1/batches") and len(server.batches) == number
        return raw(b"") if lost else act

    server.handle = behave


@pytest.mark.parametrize(
    ("lost", "then", "later"),
    [(1, 3, 0), (2, 6, 0), (1, 7, 0), (2, 7, 0), (1, 2, 0), (2, 6, 250)],
    ids=["one", "the second part", "more is asked", "more and the second part", "less is asked", "many newer ones"],
)
def test_a_batch_whose_answer_is_lost_is_not_submitted_again(tmp_path, monkeypatch, lost, then, later):
    """Whatever is asked then, and whatever else was submitted in between."""
    monkeypatch.setattr(batch, "MOST_REQUESTS", 3)
    broken = lambda body, times: body["messages"][0]["content"] == "q0" and times == 1
    with Server(lambda body, times: error("broken", 500) if broken(body, times) else echo(body, times)) as server:
        lose_the_answer_to_submission(server, lost)
        with pytest.raises(UserError, match="The same command goes on from here"):
            ask(server, tmp_path, questions(3 * lost))
        alone = Endpoint(base_url=server.url)
        with Appender(tmp_path / "replies.jsonl", Reply) as replies, pytest.raises(UserError, match=r"input .*--batch"):
            alone.ask(lambda: iter(questions(9)), replies, lambda *said: True)
        others = {f"other_{n}": {"id": f"other_{n}", "metadata": {"who": "else"}} for n in range(later)}
        server.batches |= others
        assert ask(server, tmp_path, questions(then)).answered == then
        assert sorted(server.asked) == sorted(["q0", *(f"q{n}" for n in range(max(then, 3 * lost)))])  # q0 failed once
        assert batch.pending(tmp_path / "replies.jsonl") == []


def test_a_batch_whose_answer_is_lost_and_that_is_gone_is_booked(tmp_path):
    with Server(echo) as server:
        lose_the_answer_to_submission(server, 1)
        with pytest.raises(UserError):
            ask(server, tmp_path, questions(3), **PRICED)
        server.gone = {"batch_0"}
        assert ask(server, tmp_path, questions(4), **PRICED).answered == 4
        assert booked(tmp_path) == 3 * ONE


def test_a_batch_that_was_refused_is_not_looked_for(tmp_path):
    with Server(echo) as server:
        submit = server._submit
        server._submit = lambda wanted: error("no such endpoint", 404)
        with pytest.raises(UserError, match="leave --batch out"):
            ask(server, tmp_path, questions(3))
        assert batch.pending(tmp_path / "replies.jsonl") == []
        server._submit, server._page = submit, None  # which would fail
        assert ask(server, tmp_path, questions(3)).answered == 3


def test_a_list_without_pages_ends(tmp_path, monkeypatch):
    with Server(echo) as server:
        lose_the_answer_to_submission(server, 1)
        with pytest.raises(UserError):
            ask(server, tmp_path, questions(3))
        lost = server.batches.pop("batch_0")
        server.batches["another"] = lost | {"id": "another", "metadata": None}
        page = server._page
        monkeypatch.setattr(server, "_page", lambda query: page({}) | {"has_more": True})
        assert ask(server, tmp_path, questions(3)).answered == 3


def test_what_a_batch_was_asked_is_not_asked_again_without_one(tmp_path, monkeypatch):
    with Server(echo) as server:
        with monkeypatch.context() as patch:
            patch.setattr(batch.Batches, "_end_of", killed)
            with pytest.raises(Killed):
                ask(server, tmp_path, questions(3))
        alone = Endpoint(base_url=server.url)
        with Appender(tmp_path / "replies.jsonl", Reply) as replies, pytest.raises(UserError, match="give --batch"):
            alone.ask(lambda: iter(questions(3)), replies, lambda *said: True)
        assert ask(server, tmp_path, questions(3)).answered == 3
        with Appender(tmp_path / "replies.jsonl", Reply) as replies:
            assert alone.ask(lambda: iter(questions(4)), replies, lambda *said: True).answered == 4
        assert len(server.asked) == 4
