"""What Ctrl-C, SIGTERM and a closed terminal do to a command: it ends at once, with one line, and its work is kept.

Nothing is raised for them: an exception in the middle of a library's code can be swallowed, told as a damaged file, or
crash the process. All that counts is on the disk already, in files that survive a kill, so a command can end anywhere;
where there is more to save (a training step, answers that are paid for) the signal is `heeded`.

Python runs a signal's handler when the main thread comes back to the interpreter, which a compiler or a device may keep
for minutes. So it is a second thread that ends the process; it hears of signals by Python's wakeup pipe.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, MappingProxyType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREEMPTED = 42  # exit code of a trainer that SIGTERM has stopped: launchers run it again
_ONE_PRESS = 0.3  # seconds within which several signals are one: launchers pass on what their whole group gets


class Interrupted(Exception):
    """A command was told to stop by a signal, and has saved what it had. `number`: the signal's."""

    def __init__(self, line: str, number: int):
        super().__init__(line)
        self.number = number


class _Command:
    """What signals do, and have done, to the command of this process."""

    def __init__(self, codes: Mapping[int, int]) -> None:
        self.codes = codes
        self.heeded: int | None = None  # the signal, since one was heeded
        self.saying = ""  # what is said at once where somebody heeds it
        self.cleanups: list[Callable[[], object]] = []  # before the process is ended


_command: _Command | None = None  # while one runs


def quiet(resumed: bool = False) -> None:
    """For a process that runs a command: Ctrl-C ends it with one line also while libraries are loaded or let go.

    Args:
      resumed: launchers run it again where SIGTERM ends it, then too.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: _end("interrupted", 128 + number))
    if resumed and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: _end("stopped (SIGTERM)", PREEMPTED))


@contextlib.contextmanager
def guarded(codes: Mapping[int, int] = MappingProxyType({})) -> Iterator[None]:
    """A command: within, a signal of SIGNALS ends the process with one line. One that was ignored from the start
    (nohup, a background job) stays so.

    Args:
      codes: exit codes by signal, where they are not 128 + its number.
    """
    global _command
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    command = _command = _Command(codes)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    pipe_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _heard) for number in _not_ignored(SIGNALS)}
    watch = threading.Thread(target=_watch, args=(command, reader, set(before)), name="interrupts", daemon=True)
    watch.start()
    try:
        yield
    finally:
        _restore(before)
        signal.set_wakeup_fd(pipe_before)
        os.close(writer)  # ends the thread
        watch.join()
        os.close(reader)
        _command = None


@contextlib.contextmanager
def cleaning(cleanup: Callable[[], object]) -> Iterator[None]:
    """Calls `cleanup` in the end, also where a signal ends the process."""
    if _command:
        _command.cleanups.append(cleanup)
    try:
        yield
    finally:
        if _command:
            _command.cleanups.remove(cleanup)
        cleanup()


@contextlib.contextmanager
def heeded(stop: Callable[[int], object], saying: str, numbers: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[None]:
    """Within, the first of these signals calls `stop(its number)` in the main thread, which is to bring the work to a
    good end; `saying` is told at once. The next Ctrl-C does what it does elsewhere. It holds for commands and outside
    of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        _restore(before)
        if _command:
            _command.heeded = number
        else:
            _print(saying)
        stop(number)

    if _command:
        _command.saying = saying
    before = {number: signal.signal(number, first) for number in _not_ignored(numbers)}
    try:
        yield
    finally:
        _restore(before)
        if _command and _command.heeded is None:
            _command.saying = ""


def noticed() -> int | None:
    """The signal that was heeded, if the command got one."""
    return _command.heeded if _command else None


def forget() -> None:
    """The signal came when all was done: the command has not been interrupted."""
    if _command:
        _command.heeded, _command.saying = None, ""


def exit_code(number: int) -> int:
    """Of a command that this signal has ended."""
    return (_command.codes if _command else {}).get(number, 128 + number)


def line(number: int) -> str:
    """What is told of a command that this signal has ended."""
    name = signal.Signals(number).name
    return f"interrupted ({name}): what was finished is kept, and the same command goes on from there"


def _not_ignored(numbers: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _restore(before: dict) -> None:
    while before:
        number, handler = before.popitem()
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _heard(number: int, frame: FrameType | None) -> None:
    """There has to be a handler of Python's for the pipe to hear of the signal."""


def _watch(command: _Command, reader: int, numbers: set[signal.Signals]) -> None:
    first: float | None = None  # when a signal came that is heeded
    while got := os.read(reader, 64):
        for number in numbers.intersection(got):
            if first is None and command.saying:
                first = time.monotonic()
                _print(command.saying)
            elif first is None or (number == signal.SIGINT and time.monotonic() - first > _ONE_PRESS):
                _end(line(number), exit_code(number))


def _print(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())  # past sys.stderr, whose lock another thread may hold


def _end(said: str, code: int) -> None:
    _print(said)
    for cleanup in reversed(_command.cleanups if _command else ()):
        with contextlib.suppress(Exception):  # whatever hinders it, the process ends
            cleanup()
    os._exit(code)
