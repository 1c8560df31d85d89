"""One command at a time per output: a lock file beside it, released when its process ends.

The lock is the kernel's on an open file (flock), so a file that a killed process left behind locks nothing. It is
beside the output (`runs/lema.lock`), never in it, and names its owner. Folders on gs:// have none.
"""

import contextlib
import datetime
import errno
import fcntl  # not on Windows, where nothing else here runs either
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from lema_jax import interrupts, storage
from lema_jax.errors import UserError

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems without locks
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Busy(UserError):
    """Another process has the lock."""


@contextlib.contextmanager
def held(out: str | Path, command: str) -> Iterator[None]:
    """Locks `out`, a file or a folder that need not exist, for this process.

    Args:
      command: name of this command, for the error message of another process.

    Raises:
      Busy: another process has the lock; the message names it.
      OSError: no lock file can be made there.
    """
    if storage.is_remote(out):
        print(f"{out} has no lock: make sure that no other command writes there", file=sys.stderr)
        yield
        return
    if Path(out).exists() and not (Path(out).is_file() or Path(out).is_dir()):  # a device, or a pipe, which has no path
        yield
        return
    where = Path(os.path.realpath(out))
    missing = [folder for folder in where.parents if not folder.exists()]
    where.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = _locked(where, out)
    except BaseException:
        _remove_empty(missing)
        raise
    if file is None:
        yield
        return
    path, handle = file
    with interrupts.cleaning(lambda: path.unlink(missing_ok=True)):
        try:
            who = f"process {os.getpid()} on {socket.gethostname()}"
            since = f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}"
            with contextlib.suppress(OSError):  # on a full disk the lock works, but names nobody
                os.ftruncate(handle, 0)
                os.write(handle, f"{command}, {who}, since {since}\n".encode())
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock is released, so that nobody locks a deleted file
            os.close(handle)
            _remove_empty(missing)


@contextlib.contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Within, no other process is in a block of this lock file, which stays. For files that several rewrite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        yield
    finally:
        os.close(handle)


def _locked(where: Path, out: str | Path) -> tuple[Path, int] | None:
    """The lock file, locked; None where there can be none."""
    path = where.with_name(where.name + ".lock")
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno not in _READ_ONLY or not where.exists():
                raise
            if where.is_dir() and path.parent != where:  # a mounted folder, whose parent is not writable
                path = where / ".lock"
                continue
            return None  # `out` is not writable either, and the command may only read
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 1000).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise Busy(f"{out} is being written by {owner}; wait for its end, or choose another place") from None
        except OSError as error:
            os.close(handle)
            if error.errno not in _UNSUPPORTED:
                raise
            print(f"{path.parent} has no locks: make sure that no other command writes {out}", file=sys.stderr)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path)[stat.ST_INO] == os.fstat(handle)[stat.ST_INO]:
                return path, handle
        os.close(handle)  # its owner removed it in between


def _remove_empty(folders: list[Path]) -> None:
    """Removes the folders that were made only for the lock."""
    with contextlib.suppress(OSError):
        for folder in folders:  # the innermost first
            folder.rmdir()
