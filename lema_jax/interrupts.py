"""What Ctrl-C, SIGTERM and a closed terminal do to a command: it ends with its work kept, within seconds.

Python runs a signal's handler when the main thread comes back to the interpreter, which a compiler or a device may keep
for minutes. So a second thread hears of signals too, by Python's wakeup pipe: it speaks at once, ends a process that
does not end by itself, and ends it at once at a second Ctrl-C. All files are written so that they survive that.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, MappingProxyType

from lema_jax.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KEPT = "; what was finished is kept, and the same command goes on from there"
_GRACE = 5.0  # seconds in which an interrupted command ends by itself
_ONE_PRESS = 0.2  # seconds within which several signals are one: launchers pass on what their whole group gets


class Interrupted(KeyboardInterrupt):
    """The first signal to a command, where nothing else heeds it; `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class _Command:
    """What signals have done to the command of this process."""

    def __init__(self, codes: Mapping[int, int]) -> None:
        self.codes = codes
        self.noticed: int | None = None  # the first signal
        self.saying = ""  # what is said at once where somebody heeds it
        self.cleanups: list[Callable[[], object]] = []  # before a process is ended from outside its main thread


_command: _Command | None = None  # while one runs


def quiet() -> None:
    """Until `guarded`, while libraries are loaded: Ctrl-C ends the process with one line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: _end(number, "ended before it began"))


@contextlib.contextmanager
def guarded(codes: Mapping[int, int] = MappingProxyType({})) -> Iterator[None]:
    """A command: within, the first signal of SIGNALS raises `Interrupted` in the main thread, and the next one ends the
    process at once, as one is ended that has not come to its end some seconds after it. A signal that was ignored
    from the start (nohup, a background job) stays so.

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
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _raise) for number in heard}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _raise_again)
    hook_before, sys.unraisablehook = sys.unraisablehook, _unraisable
    watch = threading.Thread(target=_watch, args=(command, reader, heard), name="interrupts", daemon=True)
    watch.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(pipe_before)
        sys.unraisablehook = hook_before
        os.close(writer)  # ends the thread
        watch.join()
        os.close(reader)
        _command = None


def noticed() -> int | None:
    """The signal that the command got, if it got one."""
    return _command.noticed if _command else None


def heeded_one() -> bool:
    """Whether the signal was heeded, so that the command came to an end of its own."""
    return _command is not None and _command.noticed is not None and bool(_command.saying)


def exit_code(number: int) -> int:
    """Of a command that this signal has ended."""
    return (_command.codes if _command else {}).get(number, 128 + number)


def check() -> None:
    """Raises `Interrupted` where the command got a signal that nothing heeds: a library may have swallowed it."""
    if _command and _command.noticed is not None and not _command.saying:
        raise Interrupted(_command.noticed)


def forget() -> None:
    """The signal came when all was done: the command has not been interrupted."""
    if _command:
        _command.noticed, _command.saying = None, ""


@contextlib.contextmanager
def cleaning(cleanup: Callable[[], object]) -> Iterator[None]:
    """Calls `cleanup` in the end, also where the process is ended from another thread; it must be quick."""
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
    """Within, the first of these signals calls `stop(its number)`, which ends the work in good order, in place of
    raising; `saying` is told at once. The next Ctrl-C does what it does elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}

    def first(number: int, frame: FrameType | None) -> None:
        restore()
        if _command:
            _command.noticed = number
        else:
            _print(saying)
        stop(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        before.clear()

    if _command:
        _command.saying = saying
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, first)
    try:
        yield
    finally:
        restore()
        if _command and _command.noticed is None:
            _command.saying = ""


def _raise(number: int, frame: FrameType | None) -> None:
    if _command and _command.noticed is None:
        _command.noticed = number
        raise Interrupted(number)


def _raise_again(number: int, frame: FrameType | None) -> None:
    if _command and _command.noticed is not None:
        raise Interrupted(_command.noticed)


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """An `Interrupted` that came where Python lets nothing out, such as a library's callback, comes again."""
    if isinstance(lost.exc_value, Interrupted):
        signal.raise_signal(signal.SIGALRM)
    else:
        sys.__unraisablehook__(lost)


def _watch(command: _Command, reader: int, numbers: list[signal.Signals]) -> None:
    first: float | None = None
    ends: float | None = None
    number = 0
    while True:
        waits = None if ends is None else max(0.0, ends - time.monotonic())
        if not select.select([reader], [], [], waits)[0]:
            _end(number, "ended" + KEPT)
        if not (got := os.read(reader, 64)):
            return
        for number in set(got).intersection(numbers):
            now = time.monotonic()
            if first is None:
                first = now
                if command.saying:
                    _print(command.saying)
                else:
                    ends = now + _GRACE
            elif now - first > _ONE_PRESS and (number == signal.SIGINT or not command.saying):
                _end(number, "ended at once" + KEPT)


def _print(text: str) -> None:
    os.write(2, f"\n{text}\n".encode())  # past sys.stderr, whose lock another thread may hold


def _end(number: int, how: str) -> None:
    for cleanup in list(_command.cleanups) if _command else ():
        with contextlib.suppress(OSError, UserError):
            cleanup()
    _print(f"{signal.Signals(number).name}: {how}")
    os._exit(exit_code(number))
