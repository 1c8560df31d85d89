"""Opens models in other programs' formats for conversion, without reading their weights."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lema_jax import digests, storage
from lema_jax.data import tokenizer as tokenizers
from lema_jax.data import tokenizer_folder
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, LoraConfig
from lema_jax.weights import hf_config, hf_folder, peft, record, safetensors, vocabulary
from lema_jax.weights.gguf import Gguf
from lema_jax.weights.merge import Replaced
from lema_jax.weights.names import EMBEDDING, HEAD, Source

_FINGERPRINTED = (".json", ".safetensors", ".model", ".jinja", ".bin")  # suffixes of the files that define a model


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model to convert.

    Attributes:
      source: its weights.
      config: its architecture.
      save_tokenizer: writes its tokenizer's files into a folder.
      fingerprint: hash of its files.
      eos_ids: tokens that end an answer, in addition to the tokenizer's.
      adapters: a `lora` collection and its shape, or None.
      base: `lineage@step` of the model folder that the full weights were exported from, or empty.
      bos_rule: the rule by which its tokenizer prepends BOS or does not.
      prompt_style: how it was trained to be asked, one of `prompts.TRAINED`.
      replaced: names of full weights that an adapter brought in place of the model's.
    """

    source: Source
    config: LlamaConfig
    save_tokenizer: Callable[[Path], None]
    fingerprint: str
    eos_ids: tuple[int, ...]
    adapters: tuple[dict[str, Any], LoraConfig] | None = None
    base: str = ""
    bos_rule: str = ""
    prompt_style: str = "paper"
    replaced: tuple[str, ...] = ()


def open_gguf(path: str | Path) -> Opened:
    """Opens a GGUF file. Raises a UserError as `Gguf` and `vocabulary.from_gguf` do."""
    file = Gguf(path)
    tokenizer = vocabulary.from_gguf(file)
    save_tokenizer = lambda out: tokenizers.save(tokenizer, out)
    ends, rule = vocabulary.eos_ids(file), vocabulary.bos_rule(file)
    made_from = digests.fingerprint([Path(path)], names=False)
    return Opened(file, file.config, save_tokenizer, made_from, ends, bos_rule=rule)


def open_hf(folder: str | Path) -> Opened:
    """Opens a Hugging Face folder. Raises a UserError as `hf_config.read` and `safetensors.open_folder` do."""
    folder = storage.on_disk(folder)
    storage.require_own_files(folder)
    made = record.read(folder)
    config = hf_config.read(folder)
    source = safetensors.open_folder(folder)
    save_tokenizer = lambda out: hf_folder.copy_tokenizer(folder, out)
    ends, rule = hf_folder.eos_ids(folder), tokenizer_folder.bos_rule(tokenizers.place(folder))
    base = made.base if made else ""
    return Opened(source, config, save_tokenizer, _fingerprint(folder), ends, base=base, bos_rule=rule)


def with_peft(opened: Opened, folder: str | Path) -> Opened:
    """A model with a PEFT adapter.

    Raises:
      UserError: as `peft.load_adapter` does, or an exported adapter of other base weights.
    """
    storage.require_own_files(folder)
    made = record.read(folder)
    if made and made.base and opened.base and made.base != opened.base:
        raise UserError(
            f"{folder} has adapters of the base weights {made.base}, but {opened.source.where} has {opened.base}; "
            "name the base that they were trained on"
        )
    adapter = peft.load_adapter(folder, opened.config)
    source, config, replaced = opened.source, opened.config, tuple(adapter.replaced.names())
    if replaced:
        untied = config.tie_embeddings and not adapter.tied and bool({EMBEDDING, HEAD} & set(replaced))
        config = dataclasses.replace(config, tie_embeddings=config.tie_embeddings and not untied)
        source = Replaced(source, adapter.replaced, untied)
    both = f"{opened.fingerprint}+{_fingerprint(folder)}"
    adapters = adapter.tree, adapter.lora
    return dataclasses.replace(
        opened, source=source, config=config, fingerprint=both, adapters=adapters, replaced=replaced
    )


def _fingerprint(folder: str | Path) -> str:
    files = (path for path in Path(folder).iterdir() if path.suffix in _FINGERPRINTED and path.name != record.NAME)
    return digests.fingerprint(sorted(files))
