"""`model.json`: what a model folder says of itself, and the names that weights go by."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pydantic

from lema_jax import digests, storage
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, LoraConfig


@dataclasses.dataclass(frozen=True)
class Card:
    """`model.json`. The file also carries a hash of itself, so that a changed byte is noticed.

    Attributes:
      config: the architecture.
      lora: shape of the adapters that `weights` holds; None when it holds whole weights.
      base: folder of the frozen base weights, relative to this folder; empty when `weights` is whole.
      lineage: hash of all that shaped the weights but the step: sources, data, configuration.
      base_lineage: the lineage and step that the base had when training began.
      eos_ids: tokens that end an answer, beside the tokenizer's own.
      init: the lineage and step of the weights that training began from; empty for random and for converted ones.
      data: fingerprint of the data set that they were trained on.
      changed: (step, lineage), ascending: what steps after that one have for a lineage, since the configuration was
        changed there.
      tokenizer: the files in `tokenizer/` and their SHA-256.
    """

    config: LlamaConfig
    lineage: str
    lora: LoraConfig | None = None
    base: str = ""
    base_lineage: str = ""
    eos_ids: tuple[int, ...] = ()
    init: str = ""
    data: str = ""
    changed: tuple[tuple[int, str], ...] = ()
    tokenizer: dict[str, str] = dataclasses.field(default_factory=dict)

    def identity(self, step: int) -> str:
        """`lineage@step`: the name of the weights at that step."""
        return f"{[self.lineage, *(lineage for since, lineage in self.changed if step > since)][-1]}@{step}"

    @property
    def lineages(self) -> list[str]:
        """All that its steps have."""
        return [self.lineage, *(lineage for _, lineage in self.changed)]

    @property
    def sealed(self) -> bool:
        """Whether its checkpoints carry checksums: those of earlier versions do not."""
        return bool(self.tokenizer)


def lineage(**shaping: Any) -> str:
    """16 hex digits that name weights by everything that shaped them."""
    return digests.hashed(shaping)[:16]


def read_card(folder: str | Path) -> Card:
    """The card of a model folder.

    Raises:
      UserError: no such folder, or a card that cannot be read or was changed since it was written.
    """
    path = storage.place(folder) / "model.json"
    try:
        told = storage.read_json(path, "bring it back from a copy, or make the folder again with convert or train")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no model folder: it has no model.json; make one with convert or train") from None
    try:
        seal = told.pop("sha256", None)
        card = pydantic.TypeAdapter(Card).validate_json(json.dumps(told))
    except (pydantic.ValidationError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not readable: {error}") from None
    if seal is None:
        digests.warn_once(f"{path} is of an earlier version: damage to it and its checkpoints would not be noticed")
    elif seal != digests.hashed(told):
        raise UserError(
            f"{path} is damaged, or was changed by hand: it does not have the sha256 that it carries; bring it back "
            "from a copy, or take the line sha256 out if the change is meant"
        )
    return card


def write_card(folder: str | Path, card: Card) -> None:
    """Writes `model.json` in one atomic step."""
    told = pydantic.TypeAdapter(Card).dump_python(card, mode="json")
    told = json.loads(json.dumps(told))
    storage.write(
        storage.place(folder) / "model.json", json.dumps(told | {"sha256": digests.hashed(told)}, indent=2) + "\n"
    )


def tokenizer_digests(folder: str | Path) -> dict[str, str]:
    """What `Card.tokenizer` says of a folder with a tokenizer's files."""
    files = sorted(file for file in storage.here(folder).iterdir() if file.is_file())
    return dict(zip((file.name for file in files), digests.sha256(files)))


def check_tokenizer(folder: str | Path, card: Card) -> None:
    """Compares a model folder's tokenizer with its card.

    Raises:
      UserError: a file of it is missing, or is not what was written.
    """
    expected = {f"tokenizer/{name}": digest for name, digest in card.tokenizer.items()}
    digests.compare(folder, expected, "bring it back from a copy, or make the folder again")
