"""Reads a sentencepiece file (`tokenizer.model` of LLaMA 1 and 2) without the sentencepiece library.

The file is one protocol buffer message, `ModelProto`; only the fields named below are looked at.
"""

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from lema_jax.errors import UserError
from lema_jax.weights import vocabulary
from lema_jax.weights.vocabulary import Kind, Special

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # of ModelProto
_PIECE, _SCORE, _KIND = 1, 2, 3  # of a piece
_MODEL_TYPE, _BYTE_FALLBACK, _UNK, _BOS, _EOS, _PAD = 3, 35, 40, 41, 42, 43  # of the trainer's settings
_CHARSMAP, _DUMMY_PREFIX, _SQUEEZE_SPACES = 2, 3, 4  # of the normalizer's settings
_BPE = 2  # a model type


def load(path: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a sentencepiece BPE file. BOS begins a text; padding there is only if the file names a token.

    Raises:
      UserError: the file is missing or damaged, or holds another kind of model than LLaMA's: BPE with byte fallback
        and without normalisation of the text.
    """
    try:
        model = _fields(Path(path).read_bytes())
        trainer, normalizer = _fields(model[_TRAINER][-1]), _fields(model[_NORMALIZER][-1])
        pieces = [_fields(piece) for piece in model[_PIECES]]
        tokens = [piece[_PIECE][-1].decode() for piece in pieces]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, IndexError, KeyError, AttributeError):
        raise UserError(f"{path} is not a sentencepiece model, or is cut short") from None
    if _last(trainer, _MODEL_TYPE, 1) != _BPE or not _last(trainer, _BYTE_FALLBACK, 0):
        raise UserError(f"{path}: only sentencepiece BPE with byte fallback, as LLaMA has it, can be read")
    if _last(normalizer, _CHARSMAP, b"") or _last(normalizer, _SQUEEZE_SPACES, 1):
        raise UserError(f"{path}: a sentencepiece model that normalises its text is not supported; LLaMA's does not")
    scores = [struct.unpack("<f", _last(piece, _SCORE, b"\0\0\0\0"))[0] for piece in pieces]
    kinds = [_last(piece, _KIND, Kind.NORMAL) for piece in pieces]
    prefix = bool(_last(normalizer, _DUMMY_PREFIX, 1))
    ids = {"bos": (_BOS, 1), "eos": (_EOS, 2), "unk": (_UNK, 0), "pad": (_PAD, -1)}  # with their defaults
    roles = {role: _role(_last(trainer, field, default), len(tokens)) for role, (field, default) in ids.items()}
    tokenizer = vocabulary.sentencepiece(tokens, scores, kinds, prefix)
    return vocabulary.finish(tokenizer, tokens, kinds, Special(**roles, add_bos=True))


def _role(id: int, size: int) -> int | None:
    """Negative numbers (no such token) are stored as 64-bit two's complement."""
    return id if 0 <= id < size else None


def _last(message: dict[int, list[Any]], field: int, absent: Any) -> Any:
    return message[field][-1] if message[field] else absent


def _fields(message: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer message by number, in order: varints as int, all else as bytes."""
    found: dict[int, list[Any]] = defaultdict(list)
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            found[number].append(value)
            continue
        size, at = _varint(message, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        found[number].append(message[at : at + size])
        at += size
        if at > len(message):
            raise ValueError("cut short")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while message[at] & 0x80:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1
