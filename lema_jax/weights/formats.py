"""Other programs' formats, opened: what a conversion needs of each, with no weights read yet."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lema_jax.data import tokenizer as tokenizers
from lema_jax.data import tokenizer_folder
from lema_jax.model.config import LlamaConfig, LoraConfig
from lema_jax.weights import hf_config, hf_folder, peft, safetensors, vocabulary
from lema_jax.weights.gguf import Gguf
from lema_jax.weights.merge import Replaced
from lema_jax.weights.names import EMBEDDING, HEAD, Source

_BLOCKS, _BLOCK = 64, 1 << 16  # of a large file, how much is looked at to tell it from another


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
      whole: weights of the source that an adapter brought whole, in place of the model's own.
      bos_rule: by which rule its tokenizer puts BOS before a text or does not, where a reader may wonder.
    """

    source: Source
    config: LlamaConfig
    save_tokenizer: Callable[[Path], None]
    fingerprint: str
    eos_ids: tuple[int, ...]
    adapters: tuple[dict[str, Any], LoraConfig] | None = None
    bos_rule: str = ""
    whole: tuple[str, ...] = ()


def open_gguf(path: str | Path) -> Opened:
    """A GGUF file. Raises a UserError as `Gguf` and `vocabulary.from_gguf` do."""
    file = Gguf(path)
    tokenizer = vocabulary.from_gguf(file)
    save_tokenizer = lambda out: tokenizers.save(tokenizer, out)
    ends, rule = vocabulary.eos_ids(file), vocabulary.bos_rule(file)
    return Opened(file, file.config, save_tokenizer, fingerprint([Path(path)]), ends, bos_rule=rule)


def open_hf(folder: str | Path) -> Opened:
    """A Hugging Face folder. Raises a UserError as `hf_config.read` and `safetensors.open_folder` do."""
    config = hf_config.read(folder)
    source = safetensors.open_folder(folder)
    files = sorted(
        path for path in Path(folder).iterdir() if path.suffix in (".json", ".jinja", ".safetensors", ".model")
    )
    save_tokenizer = lambda out: hf_folder.copy_tokenizer(folder, out)
    ends, rule = hf_folder.eos_ids(folder), tokenizer_folder.bos_rule(tokenizers.place(folder))
    return Opened(source, config, save_tokenizer, fingerprint(files), ends, bos_rule=rule)


def with_peft(opened: Opened, folder: str | Path) -> Opened:
    """A model with an adapter of PEFT's upon it. Raises a UserError as `peft.load` does."""
    adapter = peft.load(folder, opened.config)
    source, config, whole = opened.source, opened.config, tuple(adapter.whole.names())
    if whole:
        untied = config.tie_embeddings and not adapter.tied and bool({EMBEDDING, HEAD} & set(whole))
        config = dataclasses.replace(config, tie_embeddings=config.tie_embeddings and not untied)
        source = Replaced(source, adapter.whole, untied)
    files = sorted(path for path in Path(folder).iterdir() if path.suffix in (".json", ".safetensors", ".bin"))
    both = f"{opened.fingerprint}+{fingerprint(files)}"
    adapters = adapter.tree, adapter.lora
    return dataclasses.replace(opened, source=source, config=config, fingerprint=both, adapters=adapters, whole=whole)


def fingerprint(files: Iterable[Path]) -> str:
    """16 hex digits over names, sizes and content: all of a small file, evenly spread blocks of a large one."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as file:
            for number in range(_BLOCKS if size > _BLOCKS * _BLOCK else 1):
                file.seek(number * (size - _BLOCK) // (_BLOCKS - 1) if number else 0)
                digest.update(file.read(_BLOCK if size > _BLOCKS * _BLOCK else size))
    return digest.hexdigest()[:16]
