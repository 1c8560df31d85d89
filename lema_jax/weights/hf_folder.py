"""Hugging Face model folders: their tokenizers, and writing one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lema_jax import storage
from lema_jax.data import tokenizer as tokenizers
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.weights import hf_config, safetensors
from lema_jax.weights.names import Source


def copy_tokenizer(folder: str | Path, out: Path) -> None:
    """Writes a folder's tokenizer to `out` as one `tokenizer.json`, with its settings and chat template.

    Raises:
      UserError: there is no readable tokenizer.
    """
    tokenizers.save(tokenizers.load(folder), out)


def eos_ids(folder: str | Path) -> tuple[int, ...]:
    """Tokens that end an answer, from `generation_config.json` or else `config.json`.

    Raises:
      UserError: the value is no token id.
    """
    for path in (Path(folder) / "generation_config.json", Path(folder) / "config.json"):
        settings = hf_config.read_settings(path, "a Hugging Face model folder") if path.exists() else {}
        value = settings.get("eos_token_id")
        if value is not None:
            ids = value if isinstance(value, list) else [value]
            if not all(type(id) is int and 0 <= id < 1 << 31 for id in ids):
                raise UserError(f"{path}: eos_token_id={value!r:.80} must be a token id or a list of token ids")
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
    """Fills an existing, empty folder with a model that transformers and vLLM load.

    Args:
      tokenizer: folder of the tokenizer to copy.
      eos_ids: tokens that end an answer, in addition to the tokenizer's.
      dtype: of the stored weights; None for the source's. `config.json` names it, or the embedding's.
      shard_bytes: maximal size of a weights file.
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
    _compare(folder, read)


_PROBE = "Ann has 3 apples & 12.50 $,\n\n  caf\u00e9 cafe\u0301 don't \u5c0f\u660e 1234567!"


def _compare(folder: Path, ours: PreTrainedTokenizerFast) -> None:
    """Says where transformers gives a family a pre-tokenizer of its own, whatever the tokenizer's file holds."""
    theirs = AutoTokenizer.from_pretrained(folder)
    if theirs(_PROBE).input_ids != ours(_PROBE).input_ids:
        model_type = json.loads((folder / "config.json").read_text())["model_type"]
        print(
            f"warning: transformers does not read this tokenizer as it is: it gives every {model_type} model that "
            "family's rules, and so other tokens; compare them before this export is used"
        )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    storage.write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
