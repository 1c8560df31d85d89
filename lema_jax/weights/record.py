"""`conversion.json`: origin and file hashes of an exported folder in another program's format."""

import dataclasses
import json
from pathlib import Path

import pydantic

from lema_jax import digests, storage
from lema_jax.errors import UserError

NAME = "conversion.json"


@dataclasses.dataclass(frozen=True)
class Record:
    """A conversion.

    Attributes:
      lineage: fingerprint of the inputs and settings.
      made_from: path of the input.
      base: `lineage@step` of the model folder that was exported, or of the adapters' base; else empty.
      files: SHA-256 by file name; empty in folders of earlier versions.
    """

    lineage: str
    made_from: str = ""
    base: str = ""
    files: dict[str, str] = dataclasses.field(default_factory=dict)


def write(folder: Path, record: Record) -> None:
    """Writes the record, with the hashes of the folder's files, into a finished folder."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    made = dataclasses.replace(record, files=dict(zip((file.name for file in files), digests.sha256(files))))
    content = json.loads(json.dumps(dataclasses.asdict(made)))
    storage.write(folder / NAME, json.dumps(content | {"sha256": digests.hashed(content)}, indent=2) + "\n")


def read(folder: str | Path) -> Record | None:
    """The record of a folder whose files match it; None without a record.

    Raises:
      UserError: a file is missing or changed.
    """
    file = Path(folder) / NAME
    if not file.is_file():
        return None
    remedy = f"make the folder again with convert (or remove {NAME}, if the change is meant)"
    content = storage.read_json(file, remedy)
    try:
        seal = content.pop("sha256", None)
        found = pydantic.TypeAdapter(Record).validate_python(content)
    except (pydantic.ValidationError, AttributeError, TypeError):
        raise UserError(f"{file} is damaged; {remedy}") from None
    if found.files:
        if seal != digests.hashed(content):
            raise UserError(f"{file} is damaged; {remedy}")
        digests.compare(folder, found.files, remedy)
    return found
