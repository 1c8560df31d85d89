"""The processes of a study: which cores they have, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import interrupts, lock
from lema_jax.errors import UserError
from lema_jax.planning import running
from lema_jax.planning.jobs import Board, Job, Outcome
from lema_jax.stage import Config


@given(st.frozensets(st.integers(0, 300)), st.integers(1, 40))
def test_processes_share_the_cores_equally_and_none_has_none(cores: frozenset[int], count: int) -> None:
    shares = running.shares(cores, count)
    assert len(shares) == count
    if len(cores) < count:
        assert set(shares) == {cores}
    else:
        assert {len(share) for share in shares} == {len(cores) // count}
        assert len(frozenset().union(*shares)) == sum(map(len, shares))
        assert all(share <= cores for share in shares)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say which cores a process has")
def test_a_process_is_started_on_its_cores_alone() -> None:
    before = os.sched_getaffinity(0)
    with running.on(frozenset({min(before)})):
        seen = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True)
    assert seen.strip() == str({min(before)})
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("stage", ["stops", "ends"])
def test_a_signal_that_a_stage_heeds_ends_the_study_and_is_no_failure(tmp_path: Path, stage: str) -> None:
    ran = []

    def teach(config: object) -> SimpleNamespace:
        ran.append(config)
        with interrupts.heeded(lambda number: None, "saving"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        if stage == "stops":
            raise UserError("3 of 4 requests are answered and kept (interrupted)")
        (tmp_path / "correct").mkdir()
        (tmp_path / "correct" / "a.jsonl").touch()
        return SimpleNamespace(mistakes=4, kept=2, rejected={})

    board = Board(tmp_path)
    plan = [Job(id, "correct", f"correct {id}", Config(), (), f"correct/{id}.jsonl") for id in ("a", "b")]
    with interrupts.guarded(), pytest.raises(interrupts.Interrupted):
        list(running.here(board, plan, {"correct": teach}))
    assert len(ran) == 1
    states = [board.outcome(job).state for job in plan]
    assert states == ["missing" if stage == "stops" else "done", "missing"]


def plan_of(*ids: str) -> list[Job]:
    return [Job(id, "correct", f"correct {id}", Config(), (), f"correct/{id}.jsonl") for id in ids]


def test_a_job_that_another_process_runs_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def teach(config: object) -> SimpleNamespace:
        if not ran:
            ran.append(config)
            raise lock.Busy("a.jsonl is being written by another")
        return SimpleNamespace(mistakes=4, kept=2, rejected={})

    ran: list[object] = []
    board, plan = Board(tmp_path), plan_of("a", "b")
    assert [job.id for job in running.here(board, plan, {"correct": teach})] == ["b"]
    assert "correct a is run by another process: a.jsonl is being written by another" in capsys.readouterr().out
    assert board.outcome(plan[0]).state == "missing"


def test_in_a_process_of_its_own_it_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, plan = Board(tmp_path), plan_of("a", "b")

    def started(board: Board, job: Job, cores: object) -> subprocess.Popen:
        if job.id == "b":
            board.settle(job, Outcome("done"))
        code = running.BUSY if job.id == "a" else 0
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])

    monkeypatch.setattr(running, "_started", started)
    assert [job.id for job in running.in_processes(board, plan, 2)] == ["b"]
    assert board.outcome(plan[0]).state == "missing"


def test_a_damaged_file_of_replies_fails_its_job_alone(tmp_path: Path) -> None:
    def teach(config: object) -> SimpleNamespace:
        if not (tmp_path / "b.done").exists():
            (tmp_path / "b.done").touch()
            raise UserError("a.replies.jsonl:1: the line: Invalid JSON")
        return SimpleNamespace(mistakes=4, kept=2, rejected={})

    (tmp_path / "correct").mkdir()
    (tmp_path / "correct" / "a.replies.jsonl").write_text("garbage\n{}\n")
    (tmp_path / "correct" / "b.jsonl").touch()
    board, plan = Board(tmp_path), plan_of("a", "b")
    list(running.here(board, plan, {"correct": teach}))
    assert [board.outcome(job).state for job in plan] == ["failed", "done"]
    assert "Invalid JSON" in board.outcome(plan[0]).error


STUDY = """
import subprocess, sys
from lema_jax import interrupts
from lema_jax.planning import running
from lema_jax.planning.jobs import Board, Job

SAVES = "import pathlib, signal, sys, time; p = pathlib.Path(sys.argv[1]);"
SAVES += "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), p.with_suffix('.saved').touch(), sys.exit(42)));"
SAVES += "p.touch(); time.sleep(600)"
running._started = lambda board, job, cores: subprocess.Popen([sys.executable, "-c", SAVES, f"{board.out}/{job.id}"])
jobs = [Job(id, "train", id, None, (), id) for id in ("a", "b", "c")]
with interrupts.guarded():
    list(running.in_processes(Board(sys.argv[1]), jobs, 2))
"""


@pytest.mark.slow
def test_a_signal_lets_the_jobs_save_and_records_no_failure(tmp_path: Path) -> None:
    study = subprocess.Popen([sys.executable, "-c", STUDY, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    while not {"a", "b"} <= {file.name for file in tmp_path.iterdir()}:
        assert study.poll() is None
        time.sleep(0.1)
    study.send_signal(signal.SIGTERM)
    _, printed = study.communicate()
    assert "what was finished is kept" in printed
    assert {file.name for file in tmp_path.iterdir()} == {"a", "a.saved", "b", "b.saved"}
