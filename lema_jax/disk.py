"""Errors about files, from the operating system or a library, as one line: where, what happened, what to do."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

AGAIN = "run the same command again: it goes on"
_REMEDIES = {
    errno.ENOSPC: f"make room there, and {AGAIN}",
    errno.EDQUOT: f"the quota there is used up: remove what is not needed, and {AGAIN}",
    errno.EFBIG: f"raise the limit of a file's size (ulimit -f), or choose another file system, and {AGAIN}",
    errno.EROFS: "choose a writable place, or mount it so",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "a part of this path is a file; name a folder",
    errno.EEXIST: "there is something else of that name; choose another, or remove it",
    errno.ENOTEMPTY: "there is something in it; choose another, or remove it",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle; name the file itself",
    errno.EMFILE: "let a process have more files open (ulimit -n)",
    errno.ENFILE: "this machine has no more files to open; end other programs",
    errno.EIO: "the disk or its connection fails; try another",
    errno.ESTALE: "the network file system has lost it; mount it again",
    errno.ENODEV: "check the path",
    errno.ENXIO: "check the path",
    errno.EXDEV: "both must lie in one file system",
    errno.EBUSY: "another program uses it; end that",
    errno.ETXTBSY: "another program uses it; end that",
}
# The texts of the errors that, in a library's message, can only be about a file.
_WORDS = {
    os.strerror(number): number
    for number in _REMEDIES
    if number not in (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.ENODEV, errno.ENXIO, errno.EBUSY)
}
# Errors of the place, the process or the machine, not of the file's content.
_HINDRANCES = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE),
    *(errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT),
}
_HINDRANCE_WORDS = (
    *(os.strerror(number) for number in sorted(_HINDRANCES - {errno.EPERM, errno.EBUSY, errno.EAGAIN})),
    *("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "bad_alloc", "Out of memory", "out of memory"),
)
_NO_ROOM = 1 << 20  # bytes
_PATH = re.compile(r"""["'`](/[^"'`\n]+)["'`]""")


def explain(error: BaseException, out: str | Path | None) -> str | None:
    """One line for an error about a file, or caused by one; None for any other.

    Args:
      out: the command's output, for an error that names no path.
    """
    for cause in _causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None:
            number = next((number for words, number in _WORDS.items() if words in str(cause)), None)
        if number not in _REMEDIES:
            continue
        where = _named(cause)
        if where is None and number in (errno.ENOSPC, errno.EDQUOT):
            where = _full(out)
        if where is None and number in _WORDS.values() and out is not None:
            where = str(out)
        if where is not None:
            free = f" ({_free(where) / 1e9:.2f} GB free)" if number == errno.ENOSPC else ""
            return f"{where}: {os.strerror(number)}{free}; {_REMEDIES[number]}"
    return None


def hinders(error: BaseException) -> bool:
    """Whether an error or one of its causes is about a disk, permissions or memory: it says nothing about the content
    of files."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno in _HINDRANCES)
        or any(words in str(cause) for words in _HINDRANCE_WORDS)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the nearest first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
            waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()


def _named(error: BaseException) -> str | None:
    """The path that an error names; of several (a rename) the last."""
    if isinstance(error, OSError):
        names = (error.filename2, error.filename)
        return next((os.fsdecode(name) for name in names if isinstance(name, str | bytes) and name), None)
    found = _PATH.search(str(error))
    return found[1] if found else None


def _full(out: str | Path | None) -> str | None:
    """The full place: the command's output, or the folder of temporary files."""
    here = None if out is None or str(out).startswith("gs://") else str(out)
    scratch = tempfile.gettempdir()
    return scratch if _free(scratch) < _NO_ROOM and (here is None or _free(here) >= _NO_ROOM) else here


def _free(place: str) -> int:
    """Free bytes in the file system of a path, which need not exist."""
    path = Path(place).absolute()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free
