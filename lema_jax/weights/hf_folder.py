"""Hugging Face model folders: the tokenizer of one, whichever file holds it, and writing a whole one."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lema_jax import storage
from lema_jax.data import tokenizer as tokenizers
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.weights import hf_config, safetensors
from lema_jax.weights.names import Source


def copy_tokenizer(folder: str | Path, out: Path) -> None:
    """Puts a folder's tokenizer into `out` as one `tokenizer.json`, with its settings and chat template.

    Raises:
      UserError: there is no tokenizer, or it cannot be read.
    """
    tokenizers.save(tokenizers.load(folder), out)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: it holds {json.dumps(content):.80}, not an object of settings")
    return content


def eos_ids(folder: str | Path) -> tuple[int, ...]:
    """Tokens that end an answer, as `generation_config.json` says, or `config.json` where that says nothing.

    Raises:
      UserError: what it says is no token's id.
    """
    for path in (Path(folder) / "generation_config.json", Path(folder) / "config.json"):
        said = _json(path).get("eos_token_id")
        if said is not None:
            ids = said if isinstance(said, list) else [said]
            if not all(type(id) is int and 0 <= id < 1 << 31 for id in ids):
                raise UserError(f"{path}: eos_token_id={said!r:.80} must be the id of a token, or a list of such")
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
    safetensors.save(folder, source, dtype, shard_bytes)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    storage.write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
