"""One command at a time into a place: a lock beside it, which dies with its process and is gone when the command ends.

The lock is the kernel's on an open file (flock), so a file that a killed process left behind locks nothing. It lies
beside what is written (`runs/lema.lock`), never in it, and says who holds it. Folders on gs:// have none.
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

_NONE_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems without locks
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def held(out: str | Path, command: str) -> Iterator[None]:
    """Within, no other process is within the same for `out`, a file or a folder, which need not exist.

    Args:
      command: what the other is told that this one is.

    Raises:
      UserError: another process holds it; the message says which.
      OSError: no file can be made there.
    """
    if storage.is_remote(out):
        print(f"{out} has no lock: see that no other command writes there", file=sys.stderr)
        yield
        return
    where = Path(os.path.realpath(out))
    if where.exists() and not (where.is_file() or where.is_dir()):  # a device or a pipe
        yield
        return
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
            with contextlib.suppress(OSError):  # on a full disk the lock holds, but says less
                os.ftruncate(handle, 0)
                os.write(handle, f"{command}, {who}, since {since}\n".encode())
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock is let go, so that nobody locks a file that is gone
            os.close(handle)
            _remove_empty(missing)


def _locked(where: Path, out: str | Path) -> tuple[Path, int] | None:
    """The lock file, locked; None where there can be none."""
    path = where.with_name(where.name + ".lock")
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno not in _READ_ONLY or not where.exists():
                raise
            if where.is_dir() and path.parent != where:  # a mounted folder, whose parent is not for us to write
                path = where / ".lock"
                continue
            return None  # nothing can be written either, and there may be nothing to write
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.read(handle, 1000).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise UserError(f"{out} is being written by {said}; wait for its end, or choose another place") from None
        except OSError as error:
            os.close(handle)
            if error.errno not in _NONE_HERE:
                raise
            print(f"{path.parent} has no locks: see that no other command writes {out}", file=sys.stderr)
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path)[stat.ST_INO] == os.fstat(handle)[stat.ST_INO]:
                return path, handle
        os.close(handle)  # its holder removed it in between


def _remove_empty(folders: list[Path]) -> None:
    """Takes back the folders that were made for the lock alone."""
    with contextlib.suppress(OSError):
        for folder in folders:  # the innermost first
            folder.rmdir()
