"""Other programs' formats, opened: what a conversion needs of each, with no weights read yet."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lema_jax import digests
from lema_jax.data import tokenizer as tokenizers
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, LoraConfig
from lema_jax.weights import hf_config, hf_folder, peft, record, safetensors, vocabulary
from lema_jax.weights.gguf import Gguf
from lema_jax.weights.names import Source

_SHAPING = (".json", ".safetensors", ".model", ".jinja", ".bin")  # of the files that say what a model is


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model to convert.

    Attributes:
      source: its weights.
      config: its architecture.
      save_tokenizer: writes its tokenizer's files into a folder.
      fingerprint: tells it from any other model.
      eos_ids: tokens that end an answer, beside the tokenizer's own.
      adapters: a `lora` collection and its shape, to be added to the weights, where there is one.
      base: `lineage@step` of the model folder that the whole weights are of; empty where they are of none.
    """

    source: Source
    config: LlamaConfig
    save_tokenizer: Callable[[Path], None]
    fingerprint: str
    eos_ids: tuple[int, ...]
    adapters: tuple[dict[str, Any], LoraConfig] | None = None
    base: str = ""


def open_gguf(path: str | Path) -> Opened:
    """A GGUF file. Raises a UserError as `Gguf` and `vocabulary.from_gguf` do."""
    file = Gguf(path)
    tokenizer = vocabulary.from_gguf(file)
    save_tokenizer = lambda out: tokenizers.save(tokenizer, out)
    return Opened(
        file, file.config, save_tokenizer, digests.fingerprint([Path(path)], names=False), vocabulary.eos_ids(file)
    )


def open_hf(folder: str | Path) -> Opened:
    """A Hugging Face folder. Raises a UserError as `hf_config.read` and `safetensors.open_folder` do."""
    made = record.read(folder)
    config = hf_config.read(folder)
    source = safetensors.open_folder(folder)
    save_tokenizer = lambda out: hf_folder.copy_tokenizer(folder, out)
    return Opened(
        source, config, save_tokenizer, _fingerprint(folder), hf_folder.eos_ids(folder), base=made.base if made else ""
    )


def with_peft(opened: Opened, folder: str | Path) -> Opened:
    """A model with an adapter of PEFT's upon it.

    Raises:
      UserError: as `peft.load` does, or an adapter that we exported, and that began on other weights.
    """
    made = record.read(folder)
    if made and made.base and opened.base and made.base != opened.base:
        raise UserError(
            f"{folder} holds adapters of the base weights {made.base}, but {opened.source.where} holds {opened.base}; "
            "name the base that they began on"
        )
    adapters = peft.load(folder, opened.config)
    both = f"{opened.fingerprint}+{_fingerprint(folder)}"
    return dataclasses.replace(opened, adapters=adapters, fingerprint=both)


def _fingerprint(folder: str | Path) -> str:
    files = (path for path in Path(folder).iterdir() if path.suffix in _SHAPING and path.name != record.NAME)
    return digests.fingerprint(sorted(files))
