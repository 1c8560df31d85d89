"""`conversion.json`: what a folder in another program's format, which we wrote, was made from, and what is in it."""

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
      lineage: names all that shaped it.
      made_from: where that lay.
      base: `lineage@step` of the model folder that the weights are of, or that the adapters began on; empty where there
        is none.
      files: their SHA-256; empty in folders of earlier versions.
    """

    lineage: str
    made_from: str = ""
    base: str = ""
    files: dict[str, str] = dataclasses.field(default_factory=dict)


def write(folder: Path, record: Record) -> None:
    """Adds the record, with what files are there now, to a finished folder."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    made = dataclasses.replace(record, files=dict(zip((file.name for file in files), digests.sha256(files))))
    told = json.loads(json.dumps(dataclasses.asdict(made)))
    storage.write(folder / NAME, json.dumps(told | {"sha256": digests.hashed(told)}, indent=2) + "\n")


def read(folder: str | Path) -> Record | None:
    """The record of a folder, its files compared with it; None where we did not make it.

    Raises:
      UserError: a file is missing or is not what was written.
    """
    file = Path(folder) / NAME
    if not file.is_file():
        return None
    remedy = f"make the folder again with convert (or remove {NAME}, if the change is meant)"
    told = storage.read_json(file, remedy)
    try:
        seal = told.pop("sha256", None)
        found = pydantic.TypeAdapter(Record).validate_python(told)
    except (pydantic.ValidationError, AttributeError, TypeError):
        raise UserError(f"{file} is damaged; {remedy}") from None
    if found.files:
        if seal != digests.hashed(told):
            raise UserError(f"{file} is damaged; {remedy}")
        digests.compare(folder, found.files, remedy)
    return found
