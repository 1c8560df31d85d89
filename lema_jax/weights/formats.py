"""Other programs' formats, opened: what a conversion needs of each, with no weights read yet."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lema_jax import digests
from lema_jax.data import tokenizer as tokenizers
from lema_jax.model.config import LlamaConfig, LoraConfig
from lema_jax.weights import hf_config, hf_folder, peft, safetensors, vocabulary
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
    """

    source: Source
    config: LlamaConfig
    save_tokenizer: Callable[[Path], None]
    fingerprint: str
    eos_ids: tuple[int, ...]
    adapters: tuple[dict[str, Any], LoraConfig] | None = None


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
    config = hf_config.read(folder)
    source = safetensors.open_folder(folder)
    save_tokenizer = lambda out: hf_folder.copy_tokenizer(folder, out)
    return Opened(source, config, save_tokenizer, _fingerprint(folder), hf_folder.eos_ids(folder))


def with_peft(opened: Opened, folder: str | Path) -> Opened:
    """A model with an adapter of PEFT's upon it. Raises a UserError as `peft.load` does."""
    adapters = peft.load(folder, opened.config)
    both = f"{opened.fingerprint}+{_fingerprint(folder)}"
    return dataclasses.replace(opened, adapters=adapters, fingerprint=both)


def _fingerprint(folder: str | Path) -> str:
    return digests.fingerprint(sorted(path for path in Path(folder).iterdir() if path.suffix in _SHAPING))
