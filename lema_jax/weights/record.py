"""`conversion.json`: the source and the files of a folder that we wrote in another program's format."""

import dataclasses
import json
from pathlib import Path

import pydantic

from lema_jax import digests
from lema_jax.errors import UserError
from lema_jax.storage import RunFolder

NAME = "conversion.json"


@dataclasses.dataclass(frozen=True)
class Record:
    """A conversion.

    Attributes:
      lineage: hash of all that shaped it.
      made_from: path of the source.
      base: `lineage@step` of the model folder whose weights they are, or on which the adapters were trained; empty
        where there is none.
      files: SHA-256 by name; empty in folders of earlier versions.
    """

    lineage: str
    made_from: str = ""
    base: str = ""
    files: dict[str, str] = dataclasses.field(default_factory=dict)


def write(folder: Path, record: Record) -> None:
    """Adds the record, with the digests of the files that are there now, to a finished folder."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    made = dataclasses.replace(record, files=dict(zip((file.name for file in files), digests.sha256(files))))
    content = json.loads(json.dumps(dataclasses.asdict(made)))
    RunFolder(folder).write_json(NAME, content | {"sha256": digests.hashed(content)})


def read(folder: str | Path) -> Record | None:
    """The record of a folder whose files are as recorded; None where there is no record.

    Raises:
      UserError: a file is missing or changed.
    """
    file = Path(folder) / NAME
    if not file.is_file():
        return None
    remedy = f"make the folder again with convert (or remove {NAME}, if the change is meant)"
    content = RunFolder(folder).read_json(NAME, remedy)
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
