"""The processes of a study: which cores they have, and how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.planning import running


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
