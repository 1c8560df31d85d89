"""The rows of every jsonl file, and the crash-safe file that holds them.

A row carries whatever the next stage needs (a `Correction` holds its `Attempt`, which holds its `Problem`), so a stage
takes one file. A row's `id` is a hash of everything that shaped it; a stage asks for ids it does not yet find, which is
all that "resume" means here.
"""

import contextlib
import enum
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import pydantic

from lema_jax import storage
from lema_jax.errors import UserError


class Row(pydantic.BaseModel):
    """What every row has. Unknown and missing fields are errors; rows are immutable."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    id: str


class Problem(Row):
    """A question with its gold answer, in a task's common form."""

    task: str
    split: str
    question: str
    gold: str
    rationale: str = ""  # gold solution as published; GSM8K's `<<a=b>>` marks are kept, for the reference teacher
    choices: tuple[str, ...] = ()
    meta: dict[str, Any] = {}  # what a task knows besides: subject, level, template, number of steps


class Verdict(enum.StrEnum):
    """What grading says of a text. Only WRONG is a mistake to learn from."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSED = "unparsed"  # finished, but no answer could be read
    TRUNCATED = "truncated"  # cut off by the token limit before a right answer was read
    PROMPT_TOO_LONG = "prompt_too_long"  # never asked: the prompt leaves no room in the model's context


class Attempt(Row):
    """A sampled reasoning path of a student."""

    problem: Problem
    student: str  # checkpoint identity or model name
    sampling: dict[str, Any]  # temperature, top_p, seed, index of the sample, …
    prompt: str
    text: str
    answer: str | None
    verdict: Verdict
    prompt_tokens: int
    completion_tokens: int
    labelled_steps: tuple[int, ...] = ()  # the first wrong step, 1-based, as each person who looked marked it


class Correction(Row):
    """A teacher's answer to a wrong attempt: the wrong step, why, and the solution from that step on."""

    attempt: Attempt
    teacher: str
    text: str  # the reply as it came
    step: int | None = None  # 1-based number of the first wrong step; None for tasks that ask for none
    explanation: str = ""
    steps: tuple[str, ...] = ()  # the corrected steps, from `step` on
    answer: str | None = None
    rejected: str = ""  # the keep rule that it failed; empty when kept
    usage: dict[str, Any] = {}  # tokens, cost, finish reason, when the teacher is paid


class Example(Row):
    """One training example: loss on `completion` alone."""

    kind: str  # "cot" or "correction"
    problem_id: str
    source: str  # who wrote the completion: "gold", a student, a teacher
    prompt: str
    completion: str


class Prediction(Row):
    """A checkpoint's greedy answer to a test question."""

    problem: Problem
    checkpoint: str
    prompt: str
    prompt_style: str = "paper"  # one of `tasks.prompts.STYLES`
    text: str
    answer: str | None
    verdict: Verdict  # ours: right mathematically
    paper: bool | None = None  # the authors' grader's, where it was asked
    prompt_tokens: int
    completion_tokens: int


class PathScore(Row):
    """A checkpoint's score of one reasoning path, given its question."""

    problem_id: str
    checkpoint: str
    right: bool
    nll: float  # nats, summed over the path's tokens
    tokens: int


R = TypeVar("R", bound=Row)


def row_id(**shaping: Any) -> str:
    """16 hex digits that name a row by everything that shapes it; equal inputs, equal id, in any process."""
    text = json.dumps(shaping, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: str | Path, row: type[R], *, growing: bool = False) -> Iterator[R]:
    """Yields the rows of a jsonl file, one in memory at a time.

    Args:
      growing: the file is being appended to, or was when its writer was killed: a torn last line is passed over.

    Raises:
      UserError: a missing file, a malformed line (`file:line: field: reason`), or an id that occurs twice.
    """
    return (parsed for _, parsed in _read(storage.on_disk(path), row, growing))


def write(path: str | Path, rows: Iterable[Row]) -> int:
    """Writes a whole file in one atomic step (beside, then renamed); returns the number of rows."""
    path = storage.on_disk(path)
    count = 0
    with storage.replacing(path) as file:
        for count, row in enumerate(rows, start=1):  # noqa: B007 (the count is what is wanted)
            file.write(row.model_dump_json().encode() + b"\n")
    return count


class Appender(Generic[R]):
    """A jsonl file that grows durably: a row that `append` returned from survives kill -9.

    Opening it finds what is there (`rows`). A torn last line (the trace of a kill while writing) is dropped, so its row
    is done again; any other malformed line is an error and the file is left as it was found. A lock keeps a second
    process from writing the same file. A command that fails before it appends anything leaves no file behind where
    there was none, nor folders made for it.
    """

    rows: Mapping[str, R]  # by id, in the order of the file; each is read when it is asked for

    def __init__(self, path: str | Path, row: type[R]):
        self.path = storage.on_disk(path)
        self._made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab+")  # noqa: SIM115 (held open for the life of the object)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; choose another place") from None
        try:
            _lock(self._file, self.path)
            _mend_last_line(self._file)
            self.rows = self._rows = _Rows(self.path, row)
        except BaseException:
            self._close(failed=True)
            raise

    def append(self, *rows: R) -> None:
        """Writes rows whose ids are new and forces them to the disk before it returns (one fsync a call)."""
        lines: dict[str, bytes] = {}
        for row in rows:
            if row.id in self.rows or row.id in lines:
                raise ValueError(f"row {row.id} is in {self.path} already")
            lines[row.id] = row.model_dump_json().encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        self._file.write(b"".join(lines.values()))
        self._file.flush()
        os.fsync(self._file.fileno())
        for id, line in lines.items():
            self._rows.starts[id] = end
            end += len(line)

    def extend(self, rows: Iterable[R]) -> None:
        """Appends rows as they are made, some at a time, so that they may be more than fit into memory."""
        rows = iter(rows)
        while some := list(itertools.islice(rows, _ROWS_A_WRITE)):
            self.append(*some)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._rows.file.close()
        self._close(failed=any(exc))

    def _close(self, failed: bool) -> None:
        with contextlib.suppress(OSError):  # a folder that others have put something into stays
            if failed and self.path in self._made and not self.path.stat().st_size:
                self.path.unlink()
                for folder in self._made[1:]:
                    folder.rmdir()
        self._file.close()


_ROWS_A_WRITE = 64


class _Rows(Mapping[str, R]):
    """The rows of a file that is there and may grow. In memory are only the places at which they start."""

    def __init__(self, path: Path, row: type[R]):
        self._row = row
        self.starts = {parsed.id: start for start, parsed in _read(path, row)}
        self.file = open(path, "rb")  # noqa: SIM115 (apart from the one that writes, which another thread may be using)

    def __getitem__(self, id: str) -> R:
        self.file.seek(self.starts[id])
        return self._row.model_validate_json(self.file.readline())

    def __contains__(self, id: object) -> bool:
        return id in self.starts

    def __iter__(self) -> Iterator[str]:
        return iter(self.starts)

    def __len__(self) -> int:
        return len(self.starts)


def _lock(file: Any, path: Path) -> None:
    import fcntl  # not on Windows, where nothing else here runs either

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"{path} is being written by another process; wait for it or stop it") from None


def _mend_last_line(file: Any) -> None:
    """Ends the file at a newline: a whole last row gets the newline it lacks, a torn one is dropped."""
    end = keep = file.seek(0, os.SEEK_END)
    block = 1 << 16
    while keep:  # walk back to the last newline
        start = max(0, keep - block)
        file.seek(start)
        found = file.read(keep - start).rfind(b"\n")
        if found >= 0:
            keep = start + found + 1
            break
        keep = start
    if keep == end:
        return
    file.seek(keep)
    try:
        json.loads(file.read())
    except ValueError:
        file.truncate(keep)
    else:
        file.write(b"\n")


def _read(path: Path, row: type[R], growing: bool = False) -> Iterator[tuple[int, R]]:
    """The rows, and at which byte of the file each one's line starts; see `read` for errors."""
    seen: dict[str, int] = {}
    start = 0
    for number, line in _lines(path):
        if growing and not line.endswith(b"\n"):
            return
        if line.strip():
            parsed = _parse(path, number, line, row)
            if (first := seen.setdefault(parsed.id, number)) != number:
                raise UserError(f"{path}:{number}: id {parsed.id!r} stands on line {first} already; remove one of them")
            yield start, parsed
        start += len(line)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open(path, "rb") as file:
            yield from enumerate(file, start=1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _parse(path: Path, number: int, line: bytes, row: type[R]) -> R:
    try:
        return row.model_validate_json(line.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}); was it cut or compressed?") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        raise UserError(f"{path}:{number}: {field}: {first['msg']} (expected: {row.__name__})") from None
