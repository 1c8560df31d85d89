"""The row types of all jsonl files, and crash-safe files of rows.

A row contains everything that the next stage needs (a `Correction` has its `Attempt`, which has its `Problem`), so a
stage reads one file. A row's `id` is a hash of everything that determines it; a stage resumes by computing only the ids
that its output lacks.
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

from lema_jax import faults, interrupts, storage
from lema_jax.errors import UserError


class Row(pydantic.BaseModel):
    """The base of all rows: immutable; unknown and missing fields are errors."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    id: str


class Problem(Row):
    """A question with its gold answer, in a task's common form."""

    task: str
    split: str
    question: str
    gold: str
    rationale: str = ""  # gold solution as published; with GSM8K's `<<a=b>>` marks, for the reference teacher
    choices: tuple[str, ...] = ()
    meta: dict[str, Any] = {}  # of a task: subject, level, template, number of steps


class Verdict(enum.StrEnum):
    """The result of grading. Only WRONG is a mistake to learn from."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSED = "unparsed"  # finished, but no answer could be parsed
    TRUNCATED = "truncated"  # reached the token limit before a right answer
    PROMPT_TOO_LONG = "prompt_too_long"  # not generated: the prompt fills the model's context


class Attempt(Row):
    """A reasoning path sampled from a student."""

    problem: Problem
    student: str  # checkpoint identity or model name
    sampling: dict[str, Any]  # temperature, top_p, seed, index of the sample, …
    prompt: str
    text: str
    answer: str | None
    verdict: Verdict
    prompt_tokens: int
    completion_tokens: int
    labelled_steps: tuple[int, ...] = ()  # 1-based first wrong step, one per annotator


class Correction(Row):
    """A teacher's answer to a wrong attempt: the wrong step, why, and the solution from that step on."""

    attempt: Attempt
    teacher: str
    prompt: str = ""  # of a chat teacher: the prompt file's name and hash
    text: str  # the raw reply
    step: int | None = None  # 1-based number of the first wrong step; None for tasks without
    explanation: str = ""
    steps: tuple[str, ...] = ()  # the corrected steps, from `step` on
    answer: str | None = None
    rejected: str = ""  # a key of `faults.FAULTS`, or the endpoint's message; empty if accepted
    usage: dict[str, Any] = {}  # tokens, cost, finish reason of a paid teacher

    @pydantic.field_validator("rejected")
    @classmethod
    def _current_name(cls, name: str) -> str:
        return faults.FORMER.get(name, name)


class Critique(Row):
    """A teacher's judgement of an attempt, right or wrong, and the reasons."""

    attempt: Attempt
    teacher: str
    prompt: str = ""  # of a chat teacher: the prompt file's name and hash
    text: str  # the raw reply
    critique: str = ""  # the reasons
    right: bool | None = None  # whether it calls the attempt right; None if it does not say
    rejected: str = ""  # a key of `faults.FAULTS`, or the endpoint's message; empty if accepted
    usage: dict[str, Any] = {}  # tokens, cost, finish reason of a paid teacher

    @property
    def completion(self) -> str:
        """The critique as text: its reasons, then its judgement."""
        return f"{self.critique}\nConclusion: {'right' if self.right else 'wrong'}."


class Example(Row):
    """A training example, with loss on `completion` only, and there not on the characters of `without_loss`."""

    kind: str  # "cot", "correction", "own", "inline", "negative", "critique_right" or "critique_wrong"
    problem_id: str
    source: str  # who wrote the completion: "gold", a student, a teacher
    prompt: str
    completion: str
    without_loss: tuple[tuple[int, int], ...] = ()  # spans of the completion: first character, end


class Pair(Example):
    """A preference: after the prompt, `completion` is chosen over `rejected`.

    A text that ends in a line break goes on: no EOS follows it.
    """

    prefix: str = ""  # text that both begin with: the steps before the wrong one
    rejected: str


class Prediction(Row):
    """A checkpoint's answer to a test question: the greedy one, or a sample."""

    problem: Problem
    checkpoint: str
    sample: int = 0  # number of the sample, from 0
    prompt: str
    prompt_style: str = "paper"  # one of `tasks.prompts.STYLES`
    text: str
    answer: str | None
    verdict: Verdict  # of the task's own grader
    paper: bool | None = None  # of the official grader, if it ran
    prompt_tokens: int
    completion_tokens: int


class PathScore(Row):
    """A checkpoint's likelihood of a reasoning path, given its question."""

    problem_id: str
    checkpoint: str
    right: bool
    nll: float | None  # nats, summed over the path's tokens; None where the model cannot read it
    tokens: int


R = TypeVar("R", bound=Row)


def row_id(**shaping: Any) -> str:
    """16 hex digits: a hash of everything that determines a row, equal in every process."""
    text = json.dumps(shaping, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: str | Path, row: type[R], *, growing: bool = False) -> Iterator[R]:
    """Yields the rows of a jsonl file, one in memory at a time.

    Args:
      growing: a writer may be appending, or was killed: skip an incomplete last line.

    Raises:
      UserError: a missing file, a malformed line (`file:line: field: reason`), or a duplicate id.
    """
    return (parsed for _, parsed in _read(storage.on_disk(path), row, growing))


def write(path: str | Path, rows: Iterable[Row]) -> int:
    """Writes a file atomically; returns the number of rows.

    Raises:
      UserError: a row is longer than a line may be.
    """
    path, count = storage.on_disk(path), 0
    with storage.replacing(path) as file:
        for count, row in enumerate(rows, start=1):  # noqa: B007 (the result is the count)
            file.write(_line(row, path))
    return count


def _line(row: Row, path: Path) -> bytes:
    """The line of a row, which `read` takes back."""
    line = row.model_dump_json().encode() + b"\n"
    if len(line) > storage.LONGEST_LINE:
        raise UserError(f"{path}: row {row.id} has {len(line):,} bytes; a line has {storage.LONGEST_LINE:,} at most")
    return line


class Appender(Generic[R]):
    """A jsonl file that grows durably: once `append` returns, its rows survive kill -9.

    Opening it indexes the existing rows (`rows`). An incomplete last line, left by a kill, is dropped, so its row is
    computed again; any other malformed line is an error and leaves the file unchanged. A lock excludes other writers.
    If the file is new and nothing is appended, the file and the folders created for it are removed.
    """

    rows: Mapping[str, R]  # by id, in the order of the file; read on access

    def __init__(self, path: str | Path, row: type[R]):
        self.path = storage.on_disk(path)
        self._made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 (open as long as the object)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; choose another place") from None
        self._end = contextlib.ExitStack()
        self._end.callback(self._file.close)
        self._end.enter_context(interrupts.cleaning(self._remove_empty))
        try:
            _lock(self._file, self.path)
            _repair_last_line(self._file)
            self.rows = self._rows = _Rows(self.path, row)
        except BaseException:
            self._end.close()
            raise

    def append(self, *rows: R) -> None:
        """Writes rows with new ids to the disk, with one fsync per call.

        Raises:
          UserError: a row is longer than a line may be.
          OSError: the disk is full, say; names the file, which has none of the rows.
        """
        lines = {}
        for row in rows:
            if row.id in self.rows or row.id in lines:
                raise ValueError(f"row {row.id} is in {self.path} already")
            lines[row.id] = _line(row, self.path)
        end = self._file.seek(0, os.SEEK_END)
        rest = memoryview(b"".join(lines.values()))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)  # no part of a row stays
            error.filename = str(self.path)
            raise
        for id, line in lines.items():
            self._rows.starts[id] = end
            end += len(line)

    def extend(self, rows: Iterable[R]) -> None:
        """Appends rows in groups of 64 as they are produced: they need not fit into memory."""
        rows = iter(rows)
        while some := list(itertools.islice(rows, 64)):
            self.append(*some)

    def arrange(self, ids: Iterable[str]) -> list[str]:
        """Moves the rows of these ids, in this order, to the end of the file; the last operation on it.

        Returns those ids that the file has, in this order.
        """
        last = [id for id in ids if id in self.rows]
        known = set(last)
        order = [*(id for id in self.rows if id not in known), *last]
        if order != list(self.rows):
            write(self.path, map(self.rows.__getitem__, order))
        return last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._rows.file.close()
        self._end.close()

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):  # folders with other files stay
            if self.path in self._made and not self.path.stat().st_size:
                self.path.unlink()
                for folder in self._made[1:]:
                    folder.rmdir()


class _Rows(Mapping[str, R]):
    """The rows of a growing file. Only their offsets are in memory."""

    def __init__(self, path: Path, row: type[R]):
        self._row = row
        self.starts = {parsed.id: start for start, parsed in _read(path, row)}
        self.file = open(path, "rb")  # noqa: SIM115 (not the writer's handle: threads)

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
    import fcntl  # missing on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"{path} is being written by another process; wait for it or stop it") from None


def _repair_last_line(file: Any) -> None:
    """Ends the file at a newline: adds it to a complete last row, drops an incomplete one."""
    end = last_line = file.seek(0, os.SEEK_END)
    block = 1 << 16
    while last_line:  # search backwards for the last newline
        start = max(0, last_line - block)
        file.seek(start)
        found = file.read(last_line - start).rfind(b"\n")
        if found >= 0:
            last_line = start + found + 1
            break
        last_line = start
    if last_line == end:
        return
    file.seek(last_line)
    try:
        json.loads(file.read())
    except ValueError:
        file.truncate(last_line)
    else:
        file.write(b"\n")


def _read(path: Path, row: type[R], growing: bool = False) -> Iterator[tuple[int, R]]:
    """The byte offset and the row of each line; see `read` for errors."""
    seen: dict[str, int] = {}
    start = 0
    for number, line in _lines(path):
        if growing and not line.endswith(b"\n"):
            return
        if line.strip():
            parsed = _parse(path, number, line, row)
            if (first := seen.setdefault(parsed.id, number)) != number:
                raise UserError(f"{path}:{number}: id {parsed.id!r} is on line {first} already; remove one of them")
            yield start, parsed
        start += len(line)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open(path, "rb") as file:
            yield from storage.lines(file, path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _parse(path: Path, number: int, line: bytes, row: type[R]) -> R:
    try:
        return row.model_validate_json(storage.decoded(line, path, number))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        message = f"{path}:{number}: {field}: {first['msg']} (expected: {row.__name__})"
        if other := _kind(line, row):
            message = f"{path}:{number}: this is a file of {_FILES[other]}; a file of {_name(row)} is needed here"
        raise UserError(message) from None


_FILES: dict[type[Row], str] = {
    Problem: "problems",
    Attempt: "attempts (of sample)",
    Correction: "corrections (of correct)",
    Critique: "critiques (of correct --critique)",
    Example: "training examples (of build_data)",
    Pair: "preference pairs (of build_data)",
    Prediction: "predictions (of evaluate)",
    PathScore: "scores (of evaluate --score)",
}


def _name(row: type[Row]) -> str:
    return _FILES.get(row, f"rows of the kind {row.__name__}")


def _kind(line: bytes, wanted: type[Row]) -> type[Row] | None:
    """The type of a row that is not of the wanted type, if it is one of ours."""
    for row in _FILES:
        if row is not wanted:
            with contextlib.suppress(ValueError):
                row.model_validate_json(line)
                return row
    return None
