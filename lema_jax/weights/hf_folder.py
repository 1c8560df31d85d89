"""Hugging Face model folders: the tokenizer of one, whichever file holds it, and writing a whole one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from lema_jax import storage
from lema_jax.data import tokenizer as tokenizers
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.weights import hf_config, safetensors, spm
from lema_jax.weights.names import Source

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def copy_tokenizer(folder: str | Path, out: Path) -> None:
    """Puts a folder's tokenizer into `out`: its own files, or what they say where there is only a `tokenizer.model`.

    Raises:
      UserError: there is no tokenizer, or it cannot be read.
    """
    folder = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    if (folder / "tokenizer.json").exists():
        for name in _TOKENIZER_FILES:
            if (folder / name).exists():
                shutil.copyfile(folder / name, out / name)
    elif (folder / "tokenizer.model").exists():
        tokenizers.save(_extended(spm.load(folder / "tokenizer.model"), folder), out)
    else:
        raise UserError(f"{folder} has neither tokenizer.json nor tokenizer.model; copy the model's tokenizer into it")
    tokenizers.load(out)  # refuses one that cannot be used


def _extended(tokenizer: PreTrainedTokenizerFast, folder: Path) -> PreTrainedTokenizerFast:
    """With what fine-tuners added beside the sentencepiece file: further tokens, roles, a chat template."""
    added: dict[str, int] = _json(folder / "added_tokens.json")
    for token, id in sorted(added.items(), key=lambda item: item[1]):
        if id != tokenizer.convert_tokens_to_ids(token) and id != len(tokenizer):
            raise UserError(f"{folder / 'added_tokens.json'}: {token!r} has id {id}, but {len(tokenizer)} comes next")
        tokenizer.add_tokens([token], special_tokens=True)
    described = _json(folder / "tokenizer_config.json") | _json(folder / "special_tokens_map.json")
    for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
        named = described.get(role)
        if named is not None:
            setattr(tokenizer, role, named["content"] if isinstance(named, dict) else named)
    template = folder / "chat_template.jinja"
    tokenizer.chat_template = template.read_text() if template.exists() else described.get("chat_template")
    return tokenizer


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def eos_ids(folder: str | Path) -> tuple[int, ...]:
    """Tokens that end an answer, as `generation_config.json` says, or `config.json` where that says nothing.

    Raises:
      UserError: what it says is no token's id.
    """
    for path in (Path(folder) / "generation_config.json", Path(folder) / "config.json"):
        said = _json(path).get("eos_token_id")
        if said is not None:
            ids = said if isinstance(said, list) else [said]
            if not all(isinstance(id, int) for id in ids):
                raise UserError(f"{path}: eos_token_id={said!r} must be the id of a token, or a list of such")
            return tuple(ids)
    return ()


def write(
    folder: Path,
    config: LlamaConfig,
    source: Source,
    tokenizer: Path,
    eos_ids: tuple[int, ...],
    dtype: np.dtype | None,
    shard_bytes: int,
) -> None:
    """Fills an existing, empty folder with what transformers and vLLM load.

    Args:
      tokenizer: a folder with the tokenizer's files, copied.
      eos_ids: tokens that end an answer, beside the tokenizer's own.
      dtype: what weights are stored as; None for as they are. `config.json` names it, or the embedding's.
      shard_bytes: the largest size of a weights file.
    """
    copy_tokenizer(tokenizer, folder)
    read = tokenizers.load(folder)
    ends = list(eos_ids) if read.eos_token_id in eos_ids else [read.eos_token_id, *eos_ids]
    special: dict[str, int | list[int] | None] = {
        "bos_token_id": read.bos_token_id,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": read.pad_token_id,
    }
    _write_json(
        folder / "config.json",
        hf_config.to_hf(config, (dtype or source.dtype("model.embed_tokens.weight")).name, special),
    )
    _write_json(folder / "generation_config.json", {key: id for key, id in special.items() if id is not None})
    _portable_class(folder / "tokenizer_config.json")
    safetensors.save(folder, source, dtype, shard_bytes)


def _portable_class(path: Path) -> None:
    """transformers 5 names its tokenizer class by a name that version 4, and so vLLM, does not know."""
    described = _json(path)
    if described.get("tokenizer_class") == "TokenizersBackend":
        _write_json(path, described | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    storage.write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
