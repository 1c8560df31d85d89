"""How a command starts and ends: flags checked, one command at a time into a place, one line for what goes wrong.

Exit codes: 0, 1 for an error that is told in one line, 128 + a signal's number for a command that was interrupted, and
what a command's `main` returns. With the variable LEMA_TRACEBACK=1 every error also shows where it came from.
"""

import contextlib
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from absl import app, flags, logging

from lema_jax import disk, interrupts, lock
from lema_jax.errors import UserError

MOST = 2**31 - 1  # of a whole number, unless its flag says otherwise
_LARGEST = 1e15  # of any other number, likewise
_NOBODY_READS = 128 + signal.SIGPIPE
_THREADS_A_DEVICE = 4
C = TypeVar("C")
flags.disclaim_key_flags()  # what is defined here is the caller's flag, in its --help too
_FORCED = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


def run(
    main: Callable[[Sequence[str]], object],
    *,
    out: Callable[[], str | None] = lambda: None,
    first: Callable[[], bool] = lambda: True,
    codes: Mapping[int, int] = MappingProxyType({}),
) -> None:
    """Runs a command's `main(argv)` and ends the process with its exit code.

    Args:
      out: what the flags say that it writes, which is then locked; None for nothing.
      first: makes the process one of its job's, where there may be several, and says whether it is the one that writes.
      codes: exit codes of a command that was interrupted by a signal, where they are not 128 + its number.
    """

    def within(argv: Sequence[str]) -> object:
        logging.set_verbosity(logging.WARNING)  # libraries log every file they write; a command prints its own progress
        threads_for_virtual_devices()  # again, since the file of --config may have asked for devices
        writes = first()
        place = out()
        with lock.held(place, _name()) if place and writes else contextlib.nullcontext():
            code = main(argv)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where an error can still be told
        return code

    threads_for_virtual_devices()
    code: str | int | None
    with interrupts.guarded(codes):
        try:
            app.run(within, flags_parser=parse)
        except Exception as error:
            code = _tell(error, out)
        except SystemExit as end:  # how app.run gives the exit code
            code = end.code
        if (number := interrupts.noticed()) is not None:
            _leave(code or _interrupted(number))
        if code == _NOBODY_READS:
            _leave(code)
    sys.exit(code)


def threads_for_virtual_devices() -> None:
    """Asks for the threads that several devices on the CPU need, where the environment asks for such devices.

    XLA has a thread for each, and a device may wait in two collectives at once, one inside a loop and one beside it, in
    either order: then no thread may be left for the one that all wait for, and the program stands still for ever. To be
    called before JAX makes its devices.
    """
    asked = [*_FORCED.findall(os.environ.get("XLA_FLAGS", "")), os.environ.get("JAX_NUM_CPU_DEVICES", "")]
    if "jax" in sys.modules:
        asked.append(str(sys.modules["jax"].config.values["jax_num_cpu_devices"]))
    devices = max((int(count) for count in asked if count.strip().isdecimal()), default=1)
    given = os.environ.get("NPROC", "")
    if devices > 1 and (not given.isdecimal() or int(given) < _THREADS_A_DEVICE * devices):
        os.environ["NPROC"] = str(_THREADS_A_DEVICE * devices)


# --- errors -----------------------------------------------------------------------------------------------------------


def _tell(error: BaseException, out: Callable[[], str | None]) -> int:
    """Says in one line what ended the command; returns its exit code. What is a fault of ours is raised again."""
    if os.environ.get("LEMA_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, UserError):
        return _fail(str(error))
    if isinstance(error, BrokenPipeError) and error.filename is None:
        return _NOBODY_READS  # `| head`, say
    if (said := disk.told(error, _written(out))) is not None:
        return _fail(said)
    if isinstance(error, MemoryError):
        return _fail(f"there is not enough memory (in {_operation(error)}; LEMA_TRACEBACK=1 shows more)")
    if isinstance(error, OSError):
        return _fail(f"{error} (in {_operation(error)}; LEMA_TRACEBACK=1 shows more)")
    raise error


def _fail(said: str) -> int:
    with contextlib.suppress(OSError):
        print(f"error: {said}", file=sys.stderr, flush=True)
    number = interrupts.noticed()
    return 1 if number is None else interrupts.exit_code(number)


def _interrupted(number: int) -> int:
    with contextlib.suppress(OSError):
        print(interrupts.line(number), file=sys.stderr, flush=True)
    return interrupts.exit_code(number)


def _leave(code: Any) -> None:
    """Ends the process without what libraries do at the end of one, which could wait for a thread for ever."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def _written(out: Callable[[], str | None]) -> str | None:
    """What the command writes, as far as its flags were read."""
    try:
        return out()
    except Exception:  # of flags that have not been parsed there is none
        return None


def _operation(error: BaseException) -> str:
    """Where in this package an error came from."""
    package = str(Path(__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(package)]
    last = frames[-1]
    return f"{Path(last.filename).relative_to(Path(package).parent)}:{last.lineno}, {last.name}"


def _name() -> str:
    main = sys.modules["__main__"]
    return main.__spec__.name if main.__spec__ else Path(sys.argv[0]).name


# --- flags ------------------------------------------------------------------------------------------------------------


def define_paths(
    name: str, default: list[str] | None, help: str, *, repeats: bool = False, **how: Any
) -> flags.FlagHolder:
    """A flag that lists paths, separated by commas. A comma belongs to a name where a path with it exists, or where the
    name stands in double quotes; a path may begin with `jsonl:` and end with `@step`. `repeats`: one may stand twice.
    """
    return flags.DEFINE(_PathsParser(repeats), name, default, help, serializer=flags.CsvListSerializer(","), **how)


class _PathsParser(flags.ListParser):
    def __init__(self, repeats: bool = False):
        super().__init__()
        self.repeats = repeats

    def parse(self, argument: str | list[str]) -> list[str]:
        if isinstance(argument, list) or '"' in argument:
            return super().parse(argument)
        parts, found = argument.split(",") if argument else [], []
        while parts:
            whole = range(len(parts), 1, -1)  # of several names that exist, the longest
            size = next((size for size in whole if _exists(",".join(parts[:size]))), 1)
            found.append(",".join(parts[:size]).strip())
            del parts[:size]
        return found


def _exists(path: str) -> bool:
    path = path.removeprefix("jsonl:").strip()
    folder, _, step = path.rpartition("@")
    return os.path.exists(path) or ((step.isdecimal() or step == "best") and os.path.exists(folder))


def _check_numbers_and_lists() -> None:
    """Refuses what absl lets pass: NaN within any bounds, numbers that no machine holds, lists with nothing between two
    commas, and a path that stands twice in one.

    Raises:
      UserError: names the flag, its value and what it may be.
    """
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("absl."):
            continue
        for flag in defined:
            _check(flag)


def _check(flag: flags.Flag) -> None:
    value, parser = flag.value, flag.parser
    if isinstance(value, float) and value == flag.default == math.inf:
        return  # a limit that is infinite: there is none
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{flag.name}={value} must be a finite number{_bounds(parser)}")
    if isinstance(value, float) and abs(value) > _LARGEST and getattr(parser, "upper_bound", None) is None:
        raise UserError(f"--{flag.name}={value} must be at most {_LARGEST:g}{_bounds(parser)}")
    elif isinstance(value, int) and not isinstance(value, bool) and not -MOST <= value <= MOST:
        if getattr(parser, "upper_bound", None) is None:
            raise UserError(f"--{flag.name}={value} must be a whole number of at most {MOST:,}{_bounds(parser)}")
    elif isinstance(value, list) and not all(value):
        raise UserError(f"--{flag.name}={','.join(value)} has nothing between two commas; name something, or leave one")
    elif isinstance(parser, _PathsParser) and value and not parser.repeats:
        places = [os.path.realpath(one) if os.path.exists(one) else one.rstrip("/") for one in value]
        if twice := [one for one, place in zip(value, places) if places.count(place) > 1]:
            raise UserError(f"--{flag.name}={','.join(value)} names {twice[0]} twice; name it once")


def _bounds(parser: object) -> str:
    lower, upper = getattr(parser, "lower_bound", None), getattr(parser, "upper_bound", None)
    return "".join(
        f", {word} {bound:g}" for word, bound in (("at least", lower), ("at most", upper)) if bound is not None
    )


def parse(argv: list[str]) -> list[str]:
    """Reads the flags; returns the other arguments. Errors of absl's, and those of a file of --config, are the user's.

    Raises:
      UserError: an unknown flag, a value that is none or out of its range; it names the flag.
    """
    for name in _config_files(argv):
        if not os.path.isfile(name):
            found = "is a folder" if os.path.isdir(name) else "is not there"
            raise UserError(
                f"--config={name} {found}; name a Python file that has get_config(), such as those of configs/"
            )
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{_short(str(error))}; see --help") from None
    except KeyError as error:
        where = _config_line(error)
        raise UserError(
            where or f"--config: {error.args[0]}; the fields are those of lema_jax/training/config.py"
        ) from error
    except UserError:
        raise
    except Exception as error:
        said = _config_line(error) or disk.told(error, None) or f"in the command line or its --config: {_words(error)}"
        raise UserError(said) from error
    _check_numbers_and_lists()
    return rest


def _config_line(error: Exception) -> str | None:
    """What a file of --config raised, and in which of its lines; None where it raised nothing."""
    files = set(map(os.path.realpath, _config_files(sys.argv)))
    if isinstance(error, AttributeError) and error.name == "get_config":
        return f"--config={', '.join(_config_files(sys.argv))} has no get_config(); it must return a TrainConfig"
    if isinstance(error, SyntaxError) and error.filename and os.path.realpath(error.filename) in files:
        return f"{error.filename}:{error.lineno}: {error.msg}; --config names a Python file that has get_config()"
    lines = [f for f in traceback.extract_tb(error.__traceback__) if os.path.realpath(f.filename) in files]
    if not lines:
        return None
    return f"{lines[-1].filename}:{lines[-1].lineno}: {type(error).__name__}: {_words(error)}"


def _config_files(argv: Sequence[str]) -> list[str]:
    """The files that --config names, without what stands behind a colon for their get_config()."""
    given = []
    for argument, next_one in zip(argv, [*argv[1:], ""]):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            given.append((value if equals else next_one).partition(":")[0])
    return given


def _words(error: Exception) -> str:
    return _short(str(error)) or type(error).__name__


def _short(text: str) -> str:
    """The first line of a text, or as much of it as can be read."""
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= 300 else f"{line[:200]} … {line[-90:]}"


def config_of(holder: flags.FlagHolder, kind: type[C]) -> C:
    """What --config's get_config() returned.

    Raises:
      UserError: nothing was named, or it returned something else than a `kind`.
    """
    if holder.value is None:
        raise UserError("--config is missing; name a file of configs/, such as --config=configs/arithmetic_student.py")
    if not isinstance(holder.value, kind):
        found = type(holder.value).__name__
        raise UserError(f"--config: get_config() must return a {kind.__name__}, but returned a {found}")
    return holder.value
