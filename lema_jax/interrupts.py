"""Ctrl-C, SIGTERM and a closed terminal end a command at once, with one line; finished work is kept.

They raise no exception: in the middle of a library's code it could be swallowed, reported as a damaged file, or crash
the process. All results are on disk already, in files that survive a kill, so a command can end anywhere; where there
is more to save (a training step, answers that are paid for) the signal is `heeded`.

Python runs a signal handler only when the main thread returns to the interpreter, which a compiler or a device may
block for minutes. So a second thread ends the process; it receives signals through Python's wakeup pipe.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, MappingProxyType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREEMPTED = 42  # exit code of a trainer stopped by SIGTERM: launchers run it again
_ONE_PRESS = 0.3  # seconds in which several signals count as one: launchers forward what their process group gets


class Interrupted(Exception):
    """A signal stopped a command, which has saved its work. `number`: the signal's."""

    def __init__(self, line: str, number: int) -> None:
        super().__init__(line)
        self.number = number


class _Command:
    """How signals act on the command of this process, and which one came."""

    def __init__(self, codes: Mapping[int, int]) -> None:
        self.codes = codes
        self.heeded: int | None = None  # the signal that came while it was heeded
        self.saying = ""  # the line to print at once where a signal is heeded
        self.cleanups: list[Callable[[], object]] = []  # called before the process ends


_command: _Command | None = None  # while one runs


def quiet(resumed: bool = False) -> None:
    """Ctrl-C ends the process with one line also while libraries are imported or unloaded.

    Args:
      resumed: SIGTERM ends it with the exit code at which launchers run it again.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: _end("interrupted", 128 + number))
    if resumed and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: _end("stopped (SIGTERM)", PREEMPTED))


@contextlib.contextmanager
def guarded(codes: Mapping[int, int] = MappingProxyType({})) -> Iterator[None]:
    """Within, a signal of SIGNALS ends the process with one line. One that was ignored from the start (nohup, a
    background job) stays ignored.

    Args:
      codes: exit codes by signal; 128 + its number by default.
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
    """Calls `cleanup` at the end, also where a signal ends the process."""
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
    """Within, the first of these signals calls `stop(its number)` in the main thread, which shall finish the work.

    `saying` is printed at once. The next Ctrl-C ends the process as usual. Works with and without a command.
    """
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
    """The signal that came while it was heeded, if any."""
    return _command.heeded if _command else None


def forget() -> None:
    """Ignores a signal that came when all was done: the command was not interrupted."""
    if _command:
        _command.heeded, _command.saying = None, ""


def exit_code(number: int) -> int:
    """The exit code of a command that this signal ended."""
    return (_command.codes if _command else {}).get(number, 128 + number)


def line(number: int) -> str:
    """The line to print for a command that this signal ended."""
    name = signal.Signals(number).name
    return f"interrupted ({name}): what was finished is kept, and the same command goes on from there"


def _not_ignored(numbers: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _restore(before: dict[signal.Signals, Any]) -> None:
    while before:
        number, handler = before.popitem()
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _heard(number: int, frame: FrameType | None) -> None:
    """Python writes to the wakeup pipe only for signals that have a Python handler."""


def _watch(command: _Command, reader: int, numbers: set[signal.Signals]) -> None:
    first: float | None = None  # when a heeded signal came
    while got := os.read(reader, 64):
        for number in numbers.intersection(got):
            if first is None and command.saying:
                first = time.monotonic()
                _print(command.saying)
            elif first is None or (number == signal.SIGINT and time.monotonic() - first > _ONE_PRESS):
                _end(line(number), exit_code(number))


def _print(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())  # not through sys.stderr, whose lock another thread may have


def _end(line: str, code: int) -> None:
    _print(line)
    for cleanup in reversed(_command.cleanups if _command else ()):
        with contextlib.suppress(Exception):  # the process ends in any case
            cleanup()
    os._exit(code)
