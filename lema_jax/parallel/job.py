"""Multi-process set-up: how the processes of a job find each other, and how they answer questions as one.

All processes of a job do the same work in step, each on its own devices' part of every array. What they print and write
is the same, so the first one's is kept. JAX is imported where it is used: a stage that does not always need it can have
these options without waiting for it.
"""

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.stage import option

HEARTBEAT_SECONDS = 60  # a process that is silent for so long is lost, and the others end with an error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Several processes of one job; TPU pods, Slurm and MPI need none of these."""

    coordinator: str | None = option(None, "HOST:PORT of process 0.")
    processes: int | None = option(None, "Number of processes that run this command.", low=1, high=2**20)
    process: int | None = option(None, "Number of this process, from 0.", low=0, high=2**20)


def join(job: Job, *, heeds_notice: bool) -> bool:
    """Makes this process one of its job's, before anything else asks JAX for a device.

    JAX finds the job itself on a TPU pod and under Slurm or MPI, else `job` says it; without either the process is
    alone. Returns whether it is the first one, which writes. A process that has joined, or that uses its devices
    already, stays what it is.

    Args:
      heeds_notice: whether SIGTERM to one of several is a preemption signal that all ask for (`processes.Preemption`);
        else it ends the process, and with it the job.

    Raises:
      UserError: only some of the options, or a coordinator that does not answer.
    """
    import jax

    given = (job.coordinator, job.processes, job.process)
    if None in given and given != (None, None, None):
        raise UserError("give all of --coordinator, --processes and --process, or none of them")
    if jax.distributed.is_initialized():
        return jax.process_index() == 0
    jax.config.update("jax_enable_preemption_service", heeds_notice)
    try:
        jax.distributed.initialize(*given, own_gpus(os.environ), heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except ValueError as error:
        if given != (None, None, None):
            raise UserError(f"--coordinator={given[0]} --processes={given[1]} --process={given[2]}: {error}") from None
        return True  # alone
    except RuntimeError as error:
        if given == (None, None, None) and "before any JAX calls" in str(error):  # a notebook, say
            return jax.process_index() == 0
        raise UserError(f"the processes do not find each other: {error}; check --coordinator and the network") from None
    return jax.process_index() == 0


def own_gpus(env: Mapping[str, str]) -> list[int] | None:
    """Which of the GPUs that a task of Slurm's sees are its own, counted from 0; None where that is not told.

    JAX takes the one of the task's number on its node: a GPU that is not there where each task sees its own alone
    (--gpus-per-task), and one of several where a task has more. All GPUs of the node are shared out here, in order.
    """
    told = [env.get(name) for name in ("CUDA_VISIBLE_DEVICES", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")]
    if not all(told):
        return None
    visible, local, layout = len(str(told[0]).split(",")), int(str(told[1])), str(told[2])  # the last as 8(x3),2
    nodes = [int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout) for _ in range(int(times or 1))]
    tasks = nodes[int(env.get("SLURM_NODEID", 0))]
    if visible * tasks <= int(env.get("SLURM_GPUS_ON_NODE", visible)):
        return list(range(visible))  # those of the other tasks are hidden from it
    share = visible // tasks
    return list(range(local * share, (local + 1) * share)) or None


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Inside, only the job's first process prints."""
    import jax

    with contextlib.ExitStack() as stack:
        if jax.process_index() > 0:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


@contextlib.contextmanager
def written_by_the_first(path: str | Path) -> Iterator[Path]:
    """A file that every process goes on with, in step: the first one at `path`, each other one at a copy of it in a
    folder that is thrown away in the end. So no disk need be shared, and one file is written."""
    import jax

    path = Path(path)
    if jax.process_count() == 1:
        yield path
        return
    content = _from_the_first(path.read_bytes() if jax.process_index() == 0 and path.exists() else b"")
    if jax.process_index() == 0:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(content)
        yield copy


def _from_the_first(content: bytes) -> bytes:
    """What the first process has."""
    import numpy as np
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.uint32(len(content))))
    if not size:
        return b""
    sent = np.zeros(size, np.uint8)
    sent[: len(content)] = np.frombuffer(content, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes()
