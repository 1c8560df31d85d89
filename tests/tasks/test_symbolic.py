"""The worker of symbolic equality: right, and impossible to hang or to crash."""

import os
import signal
import time

import pytest

from lema_jax.tasks import math, symbolic


@pytest.fixture(scope="module")
def worker():
    worker = symbolic.Worker(seconds=3)
    yield worker
    worker.close()


def test_it_knows_what_forms_cannot_tell(worker):
    assert worker.ask("x > 3", "(3, \\infty)") is True
    assert worker.ask("(3, \\infty)", "x > 3") is True
    assert worker.ask("x < 3", "x < 4") is False


def test_a_question_without_end_is_left_open_and_the_next_is_answered(worker):
    start = time.monotonic()
    assert worker.ask("9^{9^{9}}", "5") is None
    assert time.monotonic() - start < 120
    assert worker.ask("x \\ge 3", "[3, \\infty)") is True


def test_a_worker_that_dies_is_replaced(worker):
    worker.ask("1", "1")
    os.kill(worker._process.pid, signal.SIGKILL)
    assert worker.ask("x > 3", "3 < x") is None
    assert worker.ask("x > 3", "3 < x") is True


@pytest.mark.parametrize("text", ["{" * 100_000, "\0", "\n\n", "x" * 100_000, "\\frac{", '"]', "\ud800"])
def test_hostile_texts_are_no_answers(text):
    assert not math.same(text, "\\overline{AB}")
    assert not math.same("\\overline{AB}", text)
