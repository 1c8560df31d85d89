"""`model.json`: the metadata of a model folder, and the names of its weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pydantic

from lema_jax import digests
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, LoraConfig
from lema_jax.storage import AnyFolder, RunFolder
from lema_jax.tasks import prompts

NAME = "model.json"
_REMEDY = "bring it back from a copy, or make the folder again with convert or train"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """`model.json`. The file also contains its own hash, so that a changed byte is detected.

    Attributes:
      config: the architecture.
      lineage: hash of all that shaped the weights except the step: sources, data, configuration.
      lora: shape of the adapters in `weights`; None where `weights` is a full model.
      base: folder of the frozen base weights, relative to this folder; empty for a full model.
      base_lineage: lineage and step of the base when training began.
      eos_ids: tokens that end an answer, in addition to the tokenizer's own.
      init: lineage and step of the weights that training began from; empty for random and for converted ones.
      data: fingerprint of the training data.
      changed: (step, lineage), ascending: the lineage of later steps, where the configuration was changed at a step.
      tokenizer: the files in `tokenizer/` and their SHA-256.
      prompt_style: how it was trained to be asked, one of `prompts.TRAINED`.
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
    prompt_style: str = "paper"

    def identity_at(self, step: int) -> str:
        """`lineage@step`, the name of the weights at a step."""
        return f"{[self.lineage, *(lineage for since, lineage in self.changed if step > since)][-1]}@{step}"

    @property
    def lineages(self) -> list[str]:
        """The lineages of its steps, first to last."""
        return [self.lineage, *(lineage for _, lineage in self.changed)]

    @property
    def sealed(self) -> bool:
        """Whether its checkpoints contain checksums; those of earlier versions do not."""
        return bool(self.tokenizer)


def lineage(**shaping: Any) -> str:
    """16 hex digits that name weights by all that shaped them."""
    return digests.hashed(shaping)[:16]


def read_metadata(folder: AnyFolder) -> Metadata:
    """Reads `model.json`.

    Raises:
      UserError: no such folder, or metadata that cannot be read or was changed since it was written.
    """
    folder = RunFolder(folder)
    path = folder.path / NAME
    try:
        content = folder.read_json(NAME, _REMEDY)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no model folder: it has no {NAME}; make one with convert or train") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not readable: it holds no object; {_REMEDY}")
    seal = content.pop("sha256", None)
    try:
        metadata = pydantic.TypeAdapter(Metadata).validate_json(json.dumps(content))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "its text"
        raise UserError(f"{path} is not readable: {field}: {first['msg']}; {_REMEDY}") from None
    if seal not in (None, digests.hashed(content)):
        raise UserError(
            f"{path} is damaged, or was changed by hand: its sha256 is not that of its content; bring it back "
            "from a copy, or remove the line sha256 if the change is meant"
        )
    if found := _problems(metadata):
        raise UserError(f"{path} is not readable: {'; '.join(found)}; {_REMEDY}")
    if seal is None:
        digests.warn_once(f"{path} is of an earlier version: damage to it and its checkpoints would not be noticed")
    return metadata


def _problems(metadata: Metadata) -> list[str]:
    """Values that no model has."""
    parts = {"config": metadata.config, "lora": metadata.lora}
    found = [f"{name}.{problem}" for name, part in parts.items() if part for problem in part.problems()]
    found += [f"eos_ids: {id} must be at least 0" for id in metadata.eos_ids if id < 0]
    if metadata.lora and not metadata.base:
        found.append("base='' must be the folder of the adapters' base weights")
    if metadata.prompt_style not in prompts.TRAINED:
        found.append(f"prompt_style={metadata.prompt_style!r} must be one of {', '.join(prompts.TRAINED)}")
    if strange := [name for name in metadata.tokenizer if name != Path(name).name]:
        found.append(f"tokenizer: {strange[0]!r} must be a file's name")
    return found


def write_metadata(folder: AnyFolder, metadata: Metadata) -> None:
    """Writes `model.json` atomically."""
    content = json.loads(json.dumps(pydantic.TypeAdapter(Metadata).dump_python(metadata, mode="json")))
    RunFolder(folder).write_json(NAME, content | {"sha256": digests.hashed(content)})


def tokenizer_digests(folder: AnyFolder) -> dict[str, str]:
    """The value of `Metadata.tokenizer` for a folder of tokenizer files."""
    files = sorted(file for file in RunFolder(folder).local().iterdir() if file.is_file())
    return dict(zip((file.name for file in files), digests.sha256(files)))


def check_tokenizer(folder: AnyFolder, metadata: Metadata) -> None:
    """Compares a model folder's tokenizer with its metadata.

    Raises:
      UserError: a file of it is missing or damaged.
    """
    expected = {f"tokenizer/{name}": digest for name, digest in metadata.tokenizer.items()}
    digests.compare(str(folder), expected, "bring it back from a copy, or remove the folder and make it again")
