"""The TPU compiler on a machine without a TPU: abstract devices of a slice, and compilation for them."""

import contextlib
import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import jax

from lema_jax.ahead.memory import out_of_memory
from lema_jax.errors import UserError
from lema_jax.parallel import chips
from lema_jax.parallel.chips import Slice

_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # do not query the cloud's metadata server
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several such processes at a time
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip. `arguments`: state and batch; `alias`: output that reuses donated arguments."""

    arguments: int
    output: int
    alias: int
    temporaries: int
    code: int
    peak: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled program: its memory and its HLO text."""

    memory: Memory
    text: str


def devices(where: Slice) -> list[jax.Device]:
    """Abstract devices of a slice, for a mesh to compile on. Sets this process's JAX platform to the CPU.

    Raises:
      UserError: no libtpu, or a slice that it refuses.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "compiling for a TPU needs its compiler, the package libtpu; install the extra: pip install 'lema_jax[tpu]'"
        )
    jax.config.update("jax_platforms", "cpu")
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": where.count} if where.count > 1 else {}
    if where.chips == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        with quiet():
            return list(topologies.get_topology_desc(where.libtpu, platform="tpu", **options).devices)
    except Exception as error:
        raise UserError(f"libtpu refuses {where.libtpu}: {error}; there are\n{chips.known()}") from error


def compile(lowered: jax.stages.Lowered) -> Compiled:
    """Compiles a lowered program for its devices, in a minute or two.

    Raises:
      OutOfMemory: the program does not fit. The compiler's other errors pass unchanged.
    """
    try:
        with quiet():
            done = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if (shortage := out_of_memory(str(error))) is None:
            raise
        raise shortage from None
    stats, text = done.memory_analysis(), done.as_text()
    assert stats is not None
    assert text is not None
    memory = Memory(
        arguments=stats.argument_size_in_bytes,
        output=stats.output_size_in_bytes,
        alias=stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        peak=stats.peak_memory_in_bytes,
    )
    return Compiled(memory, text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the process's stderr, where libtpu reports that it found no TPU."""
    stderr, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(sink)
