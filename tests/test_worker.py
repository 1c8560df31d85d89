"""A worker that hangs, dies or says too much ends a question, never the caller; the next question is answered."""

import os
import signal
import sys

import pytest

from lema_jax import worker
from lema_jax.worker import Ended, NotStarted, Worker

SERVER = """
import json, os, sys, time
for line in sys.stdin:
    question = json.loads(line)
    if question == "hang":
        time.sleep(600)
    if question == "die":
        os._exit(1)
    if question == "names":
        question = sorted(os.environ)
    print(json.dumps("x" * 1000 if question == "long" else [os.getpid(), question]), flush=True)
"""


@pytest.fixture
def served(tmp_path, monkeypatch):
    (tmp_path / "served_lines.py").write_text(SERVER)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    made = Worker("served_lines", first="ready")
    yield made
    made.close()


def test_one_process_answers_until_it_is_killed(served):
    (first, answer), (same, _) = served.ask({"a": "½"}, 60), served.ask(2, 60)
    assert answer == {"a": "½"}
    assert first == same != os.getpid()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(Ended):
        served.ask(3, 60)
    after, answer = served.ask(4, 60)
    assert after != first
    assert answer == 4


def test_it_sees_no_key(served, monkeypatch):
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "LEMA_TEST_SEEN"):
        monkeypatch.setenv(name, "x")
    _, names = served.ask("names", 60)
    assert "LEMA_TEST_SEEN" in names
    assert not {"OPENAI_API_KEY", "HF_TOKEN"}.intersection(names)


@pytest.mark.parametrize(("question", "seconds"), [("hang", 0.5), ("die", 60), ("long", 60)])
def test_a_bad_question_ends_the_process_alone(served, monkeypatch, question, seconds):
    monkeypatch.setattr(worker, "_LONGEST_ANSWER", 500)
    with pytest.raises(Ended):
        served.ask(question, seconds)
    assert served.ask("again", 60)[1] == "again"


def test_a_module_that_is_not_there_does_not_start():
    with pytest.raises(NotStarted):
        Worker("no_such_module_of_ours", first=None).ask(1, 60)
