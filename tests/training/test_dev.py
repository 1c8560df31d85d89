"""Trials on dev: what cannot be tried is refused at the start, no trial costs a step, and preemption adds none."""

import json

import pytest

from lema_jax import checkpoint, records
from lema_jax.errors import UserError
from lema_jax.interrupts import Interrupted
from lema_jax.training import loop
from lema_jax.training.config import DevConfig
from tests import tiny
from tests.data import rows
from tests.training import preempting
from tests.training.test_loop import BEGINNINGS, LORA, base, config, data

__all__ = ["base", "data"]  # fixtures


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """A dev set of questions without rationales."""
    folder = tmp_path_factory.mktemp("questions") / "dev"
    folder.mkdir()
    records.write(folder / "problems.jsonl", [rows.problem(number, rationale="") for number in range(3)])
    return folder


def adapters(out, data, base, **dev):
    return config(out, data, init=str(base), lora=LORA, dev=DevConfig(**dev))


def trials(out) -> list[int]:
    return [json.loads(line)["step"] for line in (out / "dev.jsonl").read_text().splitlines()]


@BEGINNINGS
def test_a_dev_example_that_is_longer_than_a_row_is_refused_at_the_start(tmp_path, data, base, begin):
    long = tiny.data_set(tmp_path / "dev", longest=40)
    with pytest.raises(UserError, match=r"data.seq_len=32 is shorter than the longest example of .*dev; the smallest"):
        begin(adapters(tmp_path / "run", data, base, path=str(long)))
    assert not (tmp_path / "run").exists()


@BEGINNINGS
def test_questions_without_rationales_have_no_loss(tmp_path, data, base, questions, begin):
    run = adapters(tmp_path / "run", data, base, path=str(questions))
    with pytest.raises(UserError, match=r"dev holds questions without rationales.*; set dev.questions"):
        begin(run)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_questions_without_rationales_are_answered(tmp_path, data, base, questions):
    run = adapters(tmp_path / "run", data, base, path=str(questions), questions=2)
    merits = iter([0.5, 0.75, 0.25])
    loop.run(run, judge=lambda metadata, mesh: lambda variables: next(merits))
    lines = [json.loads(line) for line in (tmp_path / "run" / "dev.jsonl").read_text().splitlines()]
    assert [line["accuracy"] for line in lines] == [0.5, 0.75, 0.25]
    assert not any("loss" in line for line in lines)
    assert checkpoint.best_step(tmp_path / "run") == 4


@pytest.mark.slow
def test_a_trial_that_fails_costs_no_step(tmp_path, data, base):
    def fails(variables):
        raise UserError("no room for the answers")

    run = adapters(tmp_path / "run", data, base, path=str(data), questions=1)
    with pytest.raises(UserError, match="no room"):
        loop.run(run, judge=lambda metadata, mesh: fails)
    assert checkpoint.steps(tmp_path / "run") == [2]
    run.dev.questions = 0
    loop.run(run)
    assert trials(tmp_path / "run") == [4, 6]
    assert checkpoint.best_step(tmp_path / "run") in (4, 6)


@pytest.mark.slow
def test_preemption_adds_no_trial(tmp_path, data, base, monkeypatch):
    run = adapters(tmp_path / "run", data, base, path=str(data))
    run.steps, run.checkpoint_every = 4, 4
    preempting.after(monkeypatch, 1)
    with pytest.raises(Interrupted, match="saved at step 2 of 4"):
        loop.run(run)
    assert checkpoint.trials(tmp_path / "run") == {}
    monkeypatch.undo()
    loop.run(run)
    assert trials(tmp_path / "run") == [4]
