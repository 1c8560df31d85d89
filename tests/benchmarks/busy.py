"""What a benchmark measured, and how much of the machine it had meanwhile, as one JSON line."""

import json
import os
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple


class Clocks(NamedTuple):
    """Seconds, each from a start of its own."""

    wall: float
    machine: float  # CPU time of all processes
    own: float  # CPU time of this one


def read() -> Clocks:
    ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    own = resource.getrusage(resource.RUSAGE_SELF)
    machine = (sum(ticks) - ticks[3] - ticks[4] - ticks[7]) / os.sysconf("SC_CLK_TCK")  # but idle, waiting and stolen
    return Clocks(time.perf_counter(), machine, own.ru_utime + own.ru_stime)


def report(since: Clocks, **measured: Any) -> None:
    """Prints what was measured, this process's peak memory, and whose the cores were `since` then: `my_cpu` and
    `other_busy` are shares of all of them (trust a line only where `other_busy` is small)."""
    wall, machine, own = (after - before for before, after in zip(since, read()))
    cores = os.cpu_count() or 1
    measured |= {
        "my_cpu": round(own / wall / cores, 3),
        "other_busy": round(max(0.0, machine - own) / wall / cores, 3),
        "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(measured), flush=True)
