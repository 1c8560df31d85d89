"""Several processes as one program: how they find each other, what each reads, and a stop that all agree on."""

import signal
from types import FrameType
from typing import Any

import jax
from absl import flags
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from lema_jax.errors import UserError

HEARTBEAT_SECONDS = 60  # a process that is silent for so long is lost, and the others end with an error

_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0; TPU pods and Slurm need no flags.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes run this program.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)


def join() -> None:
    """Makes this process one of its job's, before anything else asks JAX for a device.

    The job is found by JAX itself on a TPU pod and under Slurm or MPI, else told by --coordinator, --processes and
    --process; without either the process is alone.

    Raises:
      UserError: only some of the flags, or a coordinator that does not answer.
    """
    told = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    if None in told and told != (None, None, None):
        raise UserError("give all of --coordinator, --processes and --process, or none of them")
    try:
        jax.distributed.initialize(*told, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except ValueError as error:
        if told != (None, None, None):
            raise UserError(f"--coordinator={told[0]} --processes={told[1]} --process={told[2]}: {error}") from None
    except RuntimeError as error:
        raise UserError(f"the processes do not find each other: {error}; check --coordinator and the network") from None


def rows(sharding: NamedSharding, shape: tuple[int, ...]) -> slice:
    """The rows (first axis) of a global array of which this process's devices hold any part."""
    parts = sharding.addressable_devices_indices_map(shape).values()
    spans = [part[0].indices(shape[0]) for part in parts if part is not None]
    return slice(min(start for start, *_ in spans), max(stop for _, stop, _ in spans))


class Preemption:
    """Turns SIGTERM, the notice that a machine will be taken away, into a step at which every process stops."""

    def __init__(self) -> None:
        self._noticed = False

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:  # among several, JAX's own handler tells the others
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *exc: Any) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def stops_at(self, step: int) -> bool:
        """Whether to save and stop after this step; every process asks at every step and gets the same answer."""
        return self._noticed if jax.process_count() == 1 else multihost_utils.reached_preemption_sync_point(step)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._noticed = True
