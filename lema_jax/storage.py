"""Files and folders on this disk, or in Google's object store (gs://…), which outlives the machines of a run.

Orbax reads and writes checkpoints in the store itself. All else that a run needs from there is small: it is copied to
this disk first, and each write replaces a whole object, since an object of the store cannot grow.
"""

import atexit
import codecs
import contextlib
import functools
import importlib.util
import io
import itertools
import json
import os
import posixpath
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from lema_jax import interrupts
from lema_jax.errors import UserError

_STORE = "gs://"


def is_remote(folder: str | Path) -> bool:
    """Whether a folder is in the store."""
    return str(folder).startswith("gs:/")  # of a `Path` one slash is left


def place(folder: str | Path) -> Path:
    """The absolute path of a folder or file; one in the store has the methods of `Path` that read, write and list.

    Raises:
      UserError: it is in the store, and the package that reaches the store is not installed.
    """
    if not is_remote(folder):
        return Path(folder).absolute()
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{folder} is reached by the package gcsfs; install the extra: pip install 'lema_jax[gcs]'")
    from etils import epath

    return cast(Path, epath.Path(_named(folder)))


def _named(folder: str | Path) -> str:
    """As the user names it: `Path` takes one of the slashes behind `gs:` away."""
    return _STORE + str(folder).removeprefix("gs:").lstrip("/") if is_remote(folder) else str(folder)


def on_disk(path: str | Path) -> Path:
    """The path of a file or folder that must be on this disk.

    Raises:
      UserError: the path is in the store.
    """
    if is_remote(path):
        raise UserError(f"{path} must be on this disk; name a local path, and copy with gcloud storage")
    return Path(path)


def here(folder: str | Path) -> Path:
    """A local folder with the files of that one (not its subfolders): the folder itself, or a copy.

    A copy is made once and lives as long as the process.
    """
    return _fetched(str(folder)) if is_remote(folder) else Path(folder)


@functools.cache
def _fetched(folder: str) -> Path:
    copy = Path(tempfile.mkdtemp(prefix="lema_jax_"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    if place(folder).exists():
        RunFolder(copy).copy_files(folder)
    return copy


def require_own_files(folder: str | Path) -> None:
    """Refuses links to files out of a model folder: they could be anything, and would be read or copied along.

    A link may lead to another file of the folder, or, in Hugging Face's cache, from `snapshots/…` to `blobs`. The
    folder itself may be reached by links.

    Raises:
      UserError: names the link and its target.
    """
    if is_remote(folder) or not os.path.isdir(folder):
        return
    home = Path(folder).resolve()
    allowed = [home, *([home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [])]
    for file in sorted(home.iterdir()):
        if file.is_symlink() and not file.is_dir():
            target = file.resolve()
            if not any(target.is_relative_to(place) for place in allowed):
                raise UserError(
                    f"{Path(folder) / file.name} is a link to {target}, outside of it; copy the file itself"
                )


def write(file: str | Path, content: str | bytes) -> None:
    """Replaces a file atomically: a kill, a full disk or a lost machine leaves the old file, or none.

    Makes missing parent folders. What is no regular file (/dev/stdout) is written in place.
    """
    file = place(file)
    content = content.encode() if isinstance(content, str) else content
    if is_remote(file) or (file.exists() and not file.is_file()):
        file.write_bytes(content)  # the store commits an object whole or not at all
        return
    with replacing(file) as opened:
        opened.write(content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A new local file, opened for writing; it replaces `file` when the block ends without an error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file = file.resolve()  # a link stays a link
    beside = _beside(file)
    with interrupts.cleaning(lambda: beside.unlink(missing_ok=True)):
        with open(beside, "wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(beside, file)
    _sync(file.parent)


def _beside(path: Path) -> Path:
    """Where something is made that takes the path's name when it is whole; what a kill left there is removed."""
    return path.with_name(f".{path.name}.tmp")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RunFolder:
    """A folder that a stage or a run writes, on this disk or on gs://: made from a path once, then handed on.

    Each write is atomic or an appended line, so that a kill at any moment leaves a folder to go on from.

    Attributes:
      is_remote: whether it is on gs://.
    """

    def __init__(self, path: "AnyFolder") -> None:
        self._given = _named(str(path))
        self.is_remote = is_remote(self._given)

    @functools.cached_property
    def path(self) -> Path:
        """See `place`."""
        return place(self._given)

    def __str__(self) -> str:
        return self._given  # messages name the folder as the user does

    def __truediv__(self, name: str) -> "RunFolder":
        return RunFolder(f"{self._given}/{name}")

    def local(self) -> Path:
        """Where its files can be read on this disk; see `here`."""
        return here(self._given)

    def is_made(self, difference: Callable[[], str]) -> bool:
        """Whether what a stage shall make is there already. A folder that is absent or empty is free: False.

        Args:
          difference: names in what the content differs from what shall be made; empty where it does not.

        Raises:
          UserError: the folder holds something else, or is empty and cannot be replaced by a whole one.
        """
        if not self._given or (not self.is_remote and self.path == Path.cwd()):
            raise UserError(f"--out={self._given} is the folder that the command runs in; name another")
        if not self.path.exists():
            return False
        if self.path.is_dir() and all(entry.name == ".lock" for entry in self.path.iterdir()):
            real = self.path.resolve()
            if not self.is_remote and (os.path.ismount(real) or not os.access(real.parent, os.W_OK)):
                raise UserError(f"{self} cannot be replaced by a whole folder; name one in it, such as {self}/made")
            return False
        if differs := difference():
            raise UserError(f"{self} holds something else: {differs}; remove it, or choose another --out")
        return True

    @contextlib.contextmanager
    def fresh(self, makes: bool = True) -> Iterator[Path]:
        """A new local folder beside this one, which takes its name when the block ends without an error.

        Args:
          makes: False in a process for which another process of the job makes the folder.

        Raises:
          UserError: this folder holds something, or is on gs://.
        """
        out = on_disk(self._given)
        self.is_made(lambda: "it is not empty")
        out = out.resolve()  # a link stays a link
        beside = _beside(out)
        if not makes:
            yield beside
            return
        remove = lambda: shutil.rmtree(beside, ignore_errors=True)
        remove()
        with interrupts.cleaning(remove):
            beside.mkdir(parents=True)
            yield beside
            for path in (*beside.rglob("*"), beside):
                _sync(path)
            (out / ".lock").unlink(missing_ok=True)  # of a command that was killed there
            os.replace(beside, out)
            _sync(out.parent)

    def write(self, name: str, content: str | bytes) -> None:
        """Replaces a file atomically; see `write`."""
        write(self.path / name, content)

    def write_json(self, name: str, content: Any) -> None:
        """Replaces a JSON file atomically."""
        self.write(name, json.dumps(content, indent=2) + "\n")

    def append(self, name: str, text: str) -> None:
        """Appends to a file, which is made where it is absent."""
        file = self.path / name
        if self.is_remote:
            file.write_text((file.read_text() if file.exists() else "") + text)
        else:
            with open(file, "a") as opened:
                opened.write(text)
                opened.flush()
                os.fsync(opened.fileno())

    def copy_files(self, source: "AnyFolder") -> None:
        """Copies another folder's files, not its subfolders, into this one, which is made where it is absent."""
        require_own_files(str(source))
        for file in place(str(source)).iterdir():
            if not file.is_dir():
                self.write(file.name, file.read_bytes())

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).exists()

    def read_json(self, name: str, remedy: str) -> Any:
        """The content of a JSON file.

        Raises:
          UserError: it is not JSON; `remedy` ends the message.
          FileNotFoundError: there is no such file.
        """
        content = (self.path / name).read_bytes()
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            found = "is empty" if not content else f"is not JSON ({error})"
            raise UserError(f"{self.path / name} {found}: the disk was full, or it is damaged; {remedy}") from None

    def read_log(self, name: str) -> list[dict[str, Any]]:
        """The lines of a log of JSON objects with a number `step`; [] where there is no log.

        Skips a last line that a kill cut short, and any other damaged line with a warning.
        """
        file = self.path / name
        if not file.is_file():
            return []
        lines = file.read_bytes().split(b"\n")
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                found.append(entry | {"step": int(entry["step"])})
            except (ValueError, TypeError, LookupError, RecursionError):
                if number < len(lines):
                    print(f"warning: {file}:{number} is damaged and left out", file=sys.stderr)
        return found

    def log(self, name: str, last: int) -> "Log":
        """Opens a log to go on after step `last`: later lines are dropped, since those steps run again."""
        kept = [line for line in self.read_log(name) if line["step"] <= last]
        self.write(name, "".join(json.dumps(line) + "\n" for line in kept))
        return Log(self, name)

    def follow(self, relative: str) -> "RunFolder":
        """The folder at a path relative to this one; the store itself does not resolve `..`."""
        if self.is_remote:
            joined = posixpath.join(self._given.removeprefix(_STORE), relative)
            return RunFolder(_STORE + posixpath.normpath(joined))
        joined = os.path.join(self._given, relative)
        # `..` behind a link leads to where the link does; earlier versions wrote paths that take it away with the name.
        written = os.path.normpath(joined)
        return RunFolder(written if not os.path.exists(joined) and os.path.exists(written) else joined)

    def relative_to(self, start: "AnyFolder") -> str:
        """The path that leads from `start` to this folder.

        Raises:
          UserError: one is on this disk and the other on gs://.
        """
        if self.is_remote != is_remote(str(start)):
            raise UserError(f"{self} and {start} must be together, both on this disk or both on gs://")
        if self.is_remote:
            return posixpath.relpath(self._given.removeprefix(_STORE), str(start).removeprefix(_STORE))
        here, there = os.path.realpath(self._given), os.path.realpath(str(start))
        plain = os.path.relpath(self._given, str(start))  # it stays true when a link is replaced
        return plain if os.path.realpath(os.path.join(str(start), plain)) == here else os.path.relpath(here, there)


AnyFolder = str | Path | RunFolder  # what functions take that are also called from a command or a notebook


class Log:
    """An open log of JSON lines; see `RunFolder.log`.

    On gs://, where no file can grow, lines stay in memory until `keep`; steps lost with the process run again.
    """

    def __init__(self, folder: RunFolder, name: str) -> None:
        self._folder, self._name = folder, name
        self._file: TextIO = io.StringIO() if folder.is_remote else open(folder.path / name, "a")  # noqa: SIM115

    def write(self, line: Mapping[str, Any]) -> None:
        """Adds a line."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def keep(self) -> None:
        """Stores all lines; called with every checkpoint."""
        if isinstance(self._file, io.StringIO):
            self._folder.append(self._name, self._file.getvalue())
            self._file = io.StringIO()

    def close(self) -> None:
        self.keep()
        self._file.close()


LONGEST_LINE = 1 << 24  # bytes
_MARKS = {codecs.BOM_UTF8: "UTF-8", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def decoded(content: bytes, path: str | Path, line: int = 1) -> str:
    """UTF-8 text from outside.

    Args:
      path, line: the source of the text, for the message.

    Raises:
      UserError: it begins with a byte-order mark, or is not UTF-8; names file and line.
    """
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            raise UserError(
                f"{path}:{line}: begins with a byte-order mark (BOM) of {name}; save it as UTF-8 without one"
            )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        at, byte = line + content.count(b"\n", 0, error.start), content[error.start]
        raise UserError(
            f"{path}:{at}: not UTF-8 text (byte {byte:#04x}); was it cut, compressed or saved otherwise?"
        ) from None


def lines(file: BinaryIO, path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The lines of an open file with their numbers.

    Raises:
      UserError: a line is longer than `LONGEST_LINE`; names it.
    """
    for number in itertools.count(1):
        if not (line := file.readline(LONGEST_LINE + 1)):
            return
        if len(line) > LONGEST_LINE:
            raise UserError(f"{path}:{number}: a line of more than {LONGEST_LINE:,} bytes is no row; remove it")
        yield number, line


def read_text(path: str | Path) -> str:
    """The text of a file from outside; its line ends become line feeds.

    Raises:
      UserError: as `decoded`; or it cannot be read.
    """
    try:
        return decoded(Path(path).read_bytes(), path).replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
