"""The benchmarks' files as published: find, read, check and download them."""

import dataclasses
import gzip
import hashlib
import json
import os
import re
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.records import Problem

_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON's pairs are read as one character


@dataclasses.dataclass(frozen=True)
class Source:
    """A published file: its path in a data folder, what it must contain, and its URL."""

    name: str  # such as "gsm8k/train.jsonl"; the same file as .parquet is found too
    count: int
    digest: str  # `digest` of its problems; empty where it is not known
    url: str
    also: tuple[str, ...] = ()  # further paths: the publisher's own, in a copy of its repository


def folder(source: Source, data_dir: Path | None) -> Path:
    """`data_dir`, or else the folder named by the environment variable LEMA_DATA.

    Raises:
      UserError: neither is given.
    """
    if data_dir is None and not os.environ.get("LEMA_DATA"):
        raise UserError(
            f"{source.name} is needed, but no data folder is named; give --data_dir or LEMA_DATA"
            f" (the file is at {source.url})"
        )
    return Path(data_dir or os.environ["LEMA_DATA"])


def find(source: Source, data_dir: Path | None) -> Path:
    """The file's path in `folder`: by its full name or its last part, as lines, gzipped or not, or as Parquet.

    Raises:
      UserError: no folder is given, or the file does not exist.
    """
    at = folder(source, data_dir)
    places = (at / source.name, at / Path(source.name).name)
    for place in (*places, *(at / name for name in source.also)):
        for file in (place, place.with_name(place.name + ".gz"), place.with_suffix(".parquet")):
            if file.is_file():
                return file
    raise UserError(f"there is neither {places[0]} nor {places[1]}; get it from {source.url}")


def read_jsonl(path: Path, keys: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not blank; `.gz` is decompressed.

    Raises:
      UserError: `file:line` and the fault: not UTF-8, not a JSON object, a missing key.
    """
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rb") as file:
            for number, line in storage.lines(file, path):
                if not line.strip():
                    continue
                yield number, _object(f"{path}:{number}", storage.decoded(line, path, number), keys)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}:{number + 1}: cannot be read ({error}); download it again") from None


def read_rows(path: Path, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of each row of a jsonl or Parquet file.

    Raises:
      UserError: as of `read_jsonl`; a file that is not Parquet.
    """
    if path.suffix != ".parquet":
        yield from ((f"{path}:{number}", row) for number, row in read_jsonl(path, keys))
        return
    import pyarrow  # it takes a while to load, which most files need not wait for
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not Parquet ({str(error).splitlines()[0]}); download it again") from None
    for number, row in enumerate(rows):
        yield f"{path}: row {number}", require_keys(f"{path}: row {number}", row, keys)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: the file is not JSON (names the line).
    """
    try:
        return json.loads(storage.read_text(path))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); download it again") from None


def require_keys(where: str, row: Any, keys: Sequence[str]) -> dict[str, Any]:
    """The row; a `UserError` that names its place unless it is an object with those keys."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with {', '.join(keys)}, found {json.dumps(row)[:60]}")
    if missing := [key for key in keys if key not in row]:
        raise UserError(f"{where}: no {' and no '.join(missing)}; found {', '.join(row) or 'no key'}")
    return row


def problem(where: str, **fields: Any) -> Problem:
    """A problem with those fields; a field of the wrong type is a `UserError` that names its place."""
    try:
        return Problem(**fields)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def check(source: Source, path: Path, problems: list[Problem]) -> list[Problem]:
    """The problems, checked to be the publisher's: complete, and unchanged where the digest is known.

    Raises:
      UserError: the count or the content differs.
    """
    if len(problems) != source.count:
        raise UserError(
            f"{path}: {len(problems)} problems, where the publisher's has {source.count}; download it again from"
            f" {source.url} (a selection of your own is read by --task=jsonl:PATH)"
        )
    if source.digest and (found := digest(problems)) != source.digest:
        raise UserError(
            f"{path}: the texts differ from the publisher's (digest {found}, expected {source.digest}); download"
            f" it again from {source.url} (a version of your own is read by --task=jsonl:PATH)"
        )
    return problems


def digest(problems: Iterable[Problem]) -> str:
    """16 hex digits of all questions, golds, rationales and choices, independent of file format and row order."""
    texts = sorted("\x1f".join((p.question, p.gold, p.rationale, *p.choices)) for p in problems)
    return hashlib.sha256("\x1e".join(texts).encode()).hexdigest()[:16]


def download(source: Source, sha256: str, data_dir: Path) -> Path:
    """Downloads the file into `data_dir` unless it exists; returns its path.

    Raises:
      UserError: no network, or the reply is not the publisher's file.
    """
    path = data_dir / source.name
    if path.is_file():
        return path
    try:
        with urllib.request.urlopen(source.url, timeout=60) as reply:
            content = reply.read()
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"cannot download {source.url} ({error}); on a machine with a network, save it as {source.name} in a folder"
            " and name that folder by --data_dir or LEMA_DATA"
        ) from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(f"{source.url}: sha256 {found}, expected {sha256}; a proxy's page, or the file has changed")
    storage.write(path, content)
    return path


def _object(where: str, line: str, keys: Sequence[str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); is the file truncated?") from None
    if "\\ud" in line.lower() and _SURROGATE.search(json.dumps(row, ensure_ascii=False)):
        raise UserError(f"{where}: has half of a character (a lone surrogate, \\ud800 to \\udfff); write it whole")
    return require_keys(where, row, keys)
