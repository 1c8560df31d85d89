"""One command in several processes over loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def begin(count: int, *command: object) -> list[subprocess.Popen]:
    """`python command…` in `count` processes of one job, which share eight devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(8 // count)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    told = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"] if count > 1 else []
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command), *told, *([f"--process={index}"] if told else [])],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def run(count: int, *command: object) -> list[str]:
    """The same to its end, which must be a good one; what each process said."""
    processes = begin(count, *command)
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, said
    return said
