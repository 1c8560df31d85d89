"""Which cores the processes of a study have."""

import os
import subprocess
import sys

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
