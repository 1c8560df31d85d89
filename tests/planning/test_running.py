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

from lema_jax import interrupts
from lema_jax.errors import UserError
from lema_jax.planning import running
from lema_jax.planning.jobs import Board, Job
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
