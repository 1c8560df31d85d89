"""The publishers' files of the benchmarks: finding, reading, checking and downloading them."""

import dataclasses
import gzip
import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.records import Problem


@dataclasses.dataclass(frozen=True)
class Source:
    """A publisher's file: its place below a data folder, what it must hold, and where to get it."""

    name: str  # such as "gsm8k/train.jsonl"
    count: int
    digest: str  # of the problems that it yields, see `digest`
    url: str


def folder(source: Source, data_dir: Path | None) -> Path:
    """`data_dir`, or else the folder that the environment variable LEMA_DATA names.

    Raises:
      UserError: neither is given.
    """
    if data_dir is None and not os.environ.get("LEMA_DATA"):
        raise UserError(
            f"{source.name} is wanted, but no data folder is named; give --data_dir or LEMA_DATA"
            f" (the file is at {source.url})"
        )
    return Path(data_dir or os.environ["LEMA_DATA"])


def find(source: Source, data_dir: Path | None) -> Path:
    """The file's path in `data_dir`, or else in the folder that the environment variable LEMA_DATA names.

    It may lie there by its whole name or by the last part of it, packed by gzip or not.

    Raises:
      UserError: neither folder is given, or the file is not there.
    """
    at = folder(source, data_dir)
    places = (at / source.name, at / Path(source.name).name)
    for place in places:
        for file in (place, place.with_name(place.name + ".gz")):
            if file.is_file():
                return file
    raise UserError(f"there is neither {places[0]} nor {places[1]}; get it from {source.url}")


def read_jsonl(path: Path, keys: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line; `.gz` is unpacked.

    Raises:
      UserError: `file:line` and what is wrong: no UTF-8, no JSON object, a key missing.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield number, _object(f"{path}:{number}", line, keys)
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise UserError(f"{path}:{number + 1}: cannot be read ({error}); get the file anew") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: the file is not JSON; with the line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); get the file anew") from None


def require_keys(where: str, row: Any, keys: Sequence[str]) -> dict[str, Any]:
    """The row, if it is an object with those keys; otherwise a `UserError` that says where it is not."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with {', '.join(keys)}, found {json.dumps(row)[:60]}")
    if missing := [key for key in keys if key not in row]:
        raise UserError(f"{where}: no {' and no '.join(missing)}; found {', '.join(row) or 'no key'}")
    return row


def problem(where: str, **fields: Any) -> Problem:
    """A problem of those fields; a field of the wrong type is a `UserError` that says where it stands."""
    try:
        return Problem(**fields)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def check(source: Source, path: Path, problems: list[Problem]) -> list[Problem]:
    """The problems, if they are the publisher's, all of them and unchanged.

    Raises:
      UserError: another count, or another content.
    """
    if len(problems) != source.count:
        raise UserError(
            f"{path}: {len(problems)} problems, where the publisher's has {source.count}; get it anew from {source.url}"
            " (a selection of your own is read by --task=jsonl:PATH)"
        )
    if (found := digest(problems)) != source.digest:
        raise UserError(
            f"{path}: the texts differ from the publisher's (digest {found}, expected {source.digest}); get it anew"
            f" from {source.url} (a version of your own is read by --task=jsonl:PATH)"
        )
    return problems


def digest(problems: Iterable[Problem]) -> str:
    """16 hex digits of questions, golds, rationales and choices, whatever the container and the order of its rows."""
    texts = sorted("\x1f".join((p.question, p.gold, p.rationale, *p.choices)) for p in problems)
    return hashlib.sha256("\x1e".join(texts).encode()).hexdigest()[:16]


def download(source: Source, sha256: str, data_dir: Path) -> Path:
    """Fetches the file into `data_dir`, unless it is there; returns its path.

    Raises:
      UserError: no network, or what came is not the publisher's file.
    """
    path = data_dir / source.name
    if path.is_file():
        return path
    try:
        with urllib.request.urlopen(source.url, timeout=60) as reply:
            content = reply.read()
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"cannot fetch {source.url} ({error}); where there is a network, save it as {source.name} in a folder and"
            " name that folder by --data_dir or LEMA_DATA"
        ) from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(f"{source.url}: sha256 {found}, expected {sha256}; a proxy's page, or the file has changed")
    storage.write(path, content)
    return path


def _object(where: str, line: str, keys: Sequence[str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); was the file cut?") from None
    return require_keys(where, row, keys)
