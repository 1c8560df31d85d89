"""Multi-process set-up.

All processes of a job run the same program, each on its devices' shards. They print and write the same, so only the
first one does. JAX is imported in the functions: stages that have these options do not always need it.
"""

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.stage import option

HEARTBEAT_SECONDS = 60  # after which a silent process is lost and the others end with an error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Several processes of one job. On TPU pods and under Slurm or MPI, leave these unset."""

    coordinator: str | None = option(None, "HOST:PORT of process 0.")
    processes: int | None = option(None, "Number of processes that run this command.", low=1, high=2**20)
    process: int | None = option(None, "Number of this process, from 0.", low=0, high=2**20)


def join(job: Job, *, preemptible: bool) -> bool:
    """Initialises `jax.distributed`, before any other use of JAX's devices.

    JAX detects the job on a TPU pod and under Slurm or MPI; otherwise `job` names it; without either the process runs
    alone. Returns whether this is the first process, which writes. A process that is initialised, or that has used its
    devices, stays as it is.

    Args:
      preemptible: whether SIGTERM to one process is a preemption signal for all (`processes.Preemption`); otherwise
        it ends the process, and with it the job.

    Raises:
      UserError: only some of the options, or a coordinator that does not answer.
    """
    import jax

    given = (job.coordinator, job.processes, job.process)
    if None in given and given != (None, None, None):
        raise UserError("give all of --coordinator, --processes and --process, or none of them")
    if jax.distributed.is_initialized():
        return jax.process_index() == 0
    jax.config.update("jax_enable_preemption_service", preemptible)
    try:
        jax.distributed.initialize(*given, own_gpus(os.environ), heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except ValueError as error:
        if given != (None, None, None):
            raise UserError(f"--coordinator={given[0]} --processes={given[1]} --process={given[2]}: {error}") from None
        return True  # the only process
    except RuntimeError as error:
        if given == (None, None, None) and "before any JAX calls" in str(error):  # in a notebook, say
            return jax.process_index() == 0
        raise UserError(f"the processes do not find each other: {error}; check --coordinator and the network") from None
    return jax.process_index() == 0


def own_gpus(env: Mapping[str, str]) -> list[int] | None:
    """Indices of this Slurm task's GPUs among the visible ones; None outside of Slurm.

    JAX takes the GPU whose index is the task's number on its node. That fails where each task sees only its own
    (--gpus-per-task), and leaves GPUs idle where a task has several. Here the tasks of a node share all its GPUs.
    """
    settings = [env.get(name) for name in ("CUDA_VISIBLE_DEVICES", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")]
    if not all(settings):
        return None
    devices, task, layout = map(str, settings)
    visible, local = len(devices.split(",")), int(task)
    # The layout lists tasks per node, as 8(x3),2.
    nodes = [int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout) for _ in range(int(times or 1))]
    tasks = nodes[int(env.get("SLURM_NODEID", 0))]
    if visible * tasks <= int(env.get("SLURM_GPUS_ON_NODE", visible)):
        return list(range(visible))  # Slurm hides the other tasks' GPUs
    share = visible // tasks
    return list(range(local * share, (local + 1) * share)) or None


@contextlib.contextmanager
def printed_once() -> Iterator[None]:
    """Inside, only the first process of the job prints to stdout."""
    import jax

    with contextlib.ExitStack() as stack:
        if jax.process_index() > 0:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield


@contextlib.contextmanager
def written_by_the_first(path: str | Path) -> Iterator[Path]:
    """A file that all processes read and append to in step: the first at `path`, every other one at a temporary copy.

    The processes need no shared disk.

    Raises:
      UserError: the path is in the store, where no file grows.
    """
    import jax

    path = storage.on_disk(path)
    if jax.process_count() == 1:
        yield path
        return
    content = _broadcast(path.read_bytes() if jax.process_index() == 0 and path.exists() else b"")
    if jax.process_index() == 0:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(content)
        yield copy


def _broadcast(content: bytes) -> bytes:
    """The bytes of the first process."""
    import numpy as np
    from jax.experimental import multihost_utils

    halves = np.array(divmod(len(content), 1 << 32), np.uint32)  # JAX has no integers of 64 bits by default
    high, low = map(int, multihost_utils.broadcast_one_to_all(halves))
    size = (high << 32) + low
    if not size:
        return b""
    sent = np.zeros(size, np.uint8)
    sent[: len(content)] = np.frombuffer(content, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes()
