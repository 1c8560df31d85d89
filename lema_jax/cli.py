"""The command that is derived from a stage: its flags, its help, its exit code, one line for what goes wrong.

Exit codes: 0, 1 for an error that is reported in one line, 128 + a signal's number for a command that was interrupted,
and what a stage says of its result. With the variable LEMA_TRACEBACK=1 every error also shows where it came from.
"""

import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from absl import flags, logging

from lema_jax import disk, flagged, interrupts, stage
from lema_jax.errors import UserError

C = TypeVar("C", bound=stage.Config)
R = TypeVar("R")
_NOBODY_READS = 128 + signal.SIGPIPE
_THREADS_A_DEVICE = 4
_FORCED = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


@dataclasses.dataclass(frozen=True)
class Command(Generic[C, R]):
    """`python -m lema_jax.NAME`: reads flags into a config and runs a stage.

    Attributes:
      name: of the stage's module.
      doc: the module's docstring, whose first lines and first example `--help` shows.
      config: the stage's config; its options are the flags.
      run: the stage's function.
      prepare: called before the stage, in a process that is the command's alone.
      code: the exit code of a result.
      codes: exit codes by signal, where they are not 128 + its number.
    """

    name: str
    doc: str
    config: type[C]
    run: Callable[[C], R]
    prepare: Callable[[C], object] = lambda config: None
    code: Callable[[R], int] = lambda result: 0
    codes: Mapping[int, int] = dataclasses.field(default_factory=dict)

    def parse(self, argv: Sequence[str]) -> C:
        """The config of a command line, `argv` without the command's own name.

        Raises:
          UserError: an unknown or missing flag, or a value that cannot be read; it names the flag.
        """
        return flagged.parse(self.name, self.config, argv)

    def __call__(self, *argv: object) -> int:
        """Runs the command in this process; returns its exit code."""
        with interrupts.guarded(self.codes):
            return self._outcome([str(one) for one in argv])

    def main(self) -> None:
        """Runs the command of this process's own arguments and ends the process with its exit code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows its code
                stream.reconfigure(errors="backslashreplace")
        with interrupts.guarded(self.codes):
            code = self._outcome(sys.argv[1:], self.prepare)
            if interrupts.noticed() is not None or code == _NOBODY_READS:
                _leave(code)
        sys.exit(code)

    def _outcome(self, argv: Sequence[str], prepare: Callable[[C], object] = lambda config: None) -> int:
        written: list[str | Path | None] = [None]
        threads_for_virtual_devices()
        try:
            code = self._run(argv, written, prepare)
        except Exception as error:
            code = _report(error, written[0])
        return code if code or (number := interrupts.noticed()) is None else _interrupted(number)

    def _run(self, argv: Sequence[str], written: list[str | Path | None], prepare: Callable[[C], object]) -> int:
        if {"--help", "-help", "-h", "--helpshort", "--helpfull"}.intersection(argv):
            print(flagged.help_text(self.name, self.doc, self.config))
            return 0
        flags.FLAGS.mark_as_parsed()  # libraries may read absl's own
        logging.set_verbosity(logging.WARNING)  # libraries log every file they write; a stage prints its own progress
        config = self.parse(argv)
        written[0] = config.writes()
        threads_for_virtual_devices()  # again, since a file of --config may have asked for devices
        prepare(config)
        code = self.code(self.run(config))
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error can still be reported
        return code


def threads_for_virtual_devices() -> None:
    """Asks for the threads that several devices on the CPU need, where the environment asks for such devices.

    XLA has a thread for each, and a device may wait in two collectives at once, one inside a loop and one beside it, in
    either order: then no thread may be left for the one that all wait for, and the program deadlocks. To be called
    before JAX makes its devices.
    """
    asked = [*_FORCED.findall(os.environ.get("XLA_FLAGS", "")), os.environ.get("JAX_NUM_CPU_DEVICES", "")]
    if "jax" in sys.modules:
        asked.append(str(sys.modules["jax"].config.values["jax_num_cpu_devices"]))
    devices = max((int(count) for count in asked if count.strip().isdecimal()), default=1)
    given = os.environ.get("NPROC", "")
    if devices > 1 and (not given.isdecimal() or int(given) < _THREADS_A_DEVICE * devices):
        os.environ["NPROC"] = str(_THREADS_A_DEVICE * devices)


def _report(error: Exception, written: str | Path | None) -> int:
    """Prints in one line what ended the command; returns its exit code. A fault of ours is raised again."""
    if os.environ.get("LEMA_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, interrupts.Interrupted):
        _print(str(error))
        return interrupts.exit_code(error.number)
    if isinstance(error, UserError):
        return _fail(str(error))
    if isinstance(error, BrokenPipeError) and error.filename is None:
        return _NOBODY_READS  # `| head`, say
    if (line := disk.explain(error, written)) is not None:
        return _fail(line)
    if isinstance(error, MemoryError) or _of_a_full_device(error):
        return _fail(f"not enough memory (in {_operation(error)}); take smaller batches, or a machine with more")
    if isinstance(error, OSError):
        return _fail(f"{error} (in {_operation(error)}; LEMA_TRACEBACK=1 shows more)")
    raise error


def _of_a_full_device(error: Exception) -> bool:
    """Whether it is XLA's, of a device that does not hold a program or an array."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def _fail(line: str) -> int:
    _print(f"error: {line}")
    number = interrupts.noticed()
    return 1 if number is None else interrupts.exit_code(number)


def _interrupted(number: int) -> int:
    _print(interrupts.line(number))
    return interrupts.exit_code(number)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _leave(code: int) -> None:
    """Ends the process without what libraries do at the end of one, which could wait for a thread for ever."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _operation(error: BaseException) -> str:
    """Where in this package an error came from."""
    package = str(Path(__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(package)]
    last = frames[-1]
    return f"{Path(last.filename).relative_to(Path(package).parent)}:{last.lineno}, {last.name}"
