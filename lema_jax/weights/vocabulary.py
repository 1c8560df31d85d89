"""Builds a Hugging Face tokenizer from the vocabulary in a GGUF's metadata."""

import dataclasses
import enum
from typing import Any, TypeVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lema_jax.errors import UserError
from lema_jax.weights.gguf import Gguf

_SPACE = "▁"  # sentencepiece's space

_GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace("{1,3}", "")
# llama.cpp's pre-tokenizers as patterns, each applied to the pieces of the previous one.
_SPLITS = {
    "gpt-2": (_GPT2_SPLIT,),
    "smollm": (r"\p{N}", _GPT2_SPLIT),  # one digit per piece
    "llama-bpe": (_LLAMA3_SPLIT,),
    "llama-v3": (_LLAMA3_SPLIT,),
    "llama3": (_LLAMA3_SPLIT,),
    "qwen2": (_QWEN2_SPLIT,),
}
_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>")
_UNSET = object()
_KEY = "tokenizer.ggml."  # begins the keys of the metadata
V = TypeVar("V")
_IGNORE_MERGES = ("llama-bpe", "llama-v3", "llama3")  # a piece that is a token is not merged from its bytes


class Kind(enum.IntEnum):
    """Sentencepiece's types of pieces, which GGUF uses too."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclasses.dataclass(frozen=True)
class Special:
    """Ids of the special tokens, or None, and whether BOS is prepended."""

    bos: int | None
    eos: int | None
    unk: int | None
    pad: int | None
    add_bos: bool


def from_gguf(file: Gguf) -> PreTrainedTokenizerFast:
    """The tokenizer in a GGUF's metadata, with its chat template.

    Raises:
      UserError: an unknown tokenizer model or pre-tokenizer: guessing one would change token ids. Or a value that is of
        another type or length, or that names no token.
    """
    tokens = _list(file, "tokens", str)
    kinds = _list(file, "token_type", int, len(tokens), [int(Kind.NORMAL)] * len(tokens))
    model = file.get(_KEY + "model")
    if model == "gpt2":
        merges = [_pair(merge) for merge in _list(file, "merges", str)]
        tokenizer = byte_level(tokens, merges, _value(file, _KEY + "pre", str), file.where)
    elif model == "llama":
        prefix = _value(file, _KEY + "add_space_prefix", bool, True)
        tokenizer = sentencepiece(tokens, _list(file, "scores", float, len(tokens)), kinds, prefix)
    else:
        raise UserError(f"{file.where}: tokenizer.ggml.model={model!r:.80} is not supported ('gpt2' and 'llama' are)")
    special = Special(
        bos=_id(file, "bos", tokens),
        eos=_id(file, "eos", tokens),
        unk=_id(file, "unknown", tokens),
        pad=_id(file, "padding", tokens),
        add_bos=_value(file, _KEY + "add_bos_token", bool, _adds_bos(file)),
    )
    return finish(tokenizer, tokens, kinds, special, _value(file, "tokenizer.chat_template", str, ""))


def eos_ids(file: Gguf) -> tuple[int, ...]:
    """Tokens that end an answer: of text, turn and message as far as the metadata names them, and control tokens of
    such names, as in llama.cpp: many files name one alone."""
    tokens = _list(file, "tokens", str)
    kinds = _list(file, "token_type", int, len(tokens), [int(Kind.NORMAL)] * len(tokens))
    named = [_id(file, role, tokens) for role in ("eos", "eot", "eom")]
    known = [id for id, kind in enumerate(kinds) if kind == Kind.CONTROL and tokens[id] in _ENDS]
    return tuple(dict.fromkeys(id for id in (*named, *known) if id is not None))


def bos_rule(file: Gguf) -> str:
    """The rule by which BOS is prepended or not, for the report of a conversion."""
    if file.get("tokenizer.ggml.add_bos_token", _UNSET) is _UNSET:
        return "as llama.cpp does where the file has no tokenizer.ggml.add_bos_token"
    return "by its tokenizer.ggml.add_bos_token"


def _adds_bos(file: Gguf) -> bool:
    """llama.cpp's default."""
    return file.get("tokenizer.ggml.model") == "llama" or file.get("tokenizer.ggml.pre") in _IGNORE_MERGES


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _id(file: Gguf, role: str, tokens: list[str]) -> int | None:
    key = f"{_KEY}{role}_token_id"
    if (found := _value(file, key, int, -1)) >= len(tokens):
        raise UserError(f"{file.where}: {key}={found} is beyond its {len(tokens):,} tokens")
    return None if found < 0 else found


def _value(file: Gguf, key: str, of: type[V], absent: V | None = None) -> V:
    found = file.get(key, absent)
    if type(found) is not of:
        raise UserError(f"{file.where}: {key}={found!r:.80} is no {of.__name__}")
    return found


def _list(file: Gguf, name: str, of: type[V], length: int | None = None, absent: list[V] | None = None) -> list[V]:
    found = file.get(_KEY + name, absent)
    if not isinstance(found, list) or not all(isinstance(one, of) for one in found):
        raise UserError(f"{file.where}: {_KEY}{name} is no list of {of.__name__}")
    if length is not None and len(found) != length:
        raise UserError(f"{file.where}: {_KEY}{name} has {len(found):,} values, for {length:,} tokens")
    return found


def byte_level(tokens: list[str], merges: list[tuple[str, str]], pre: str, where: str) -> Tokenizer:
    """Byte-level BPE with one of llama.cpp's pre-tokenizers; `where` is for error messages."""
    if pre not in _SPLITS:
        raise UserError(
            f"{where}: tokenizer.ggml.pre={pre!r} is not known ({', '.join(_SPLITS)} are); convert from the Hugging "
            "Face folder instead, which has the tokenizer"
        )
    vocabulary = {token: id for id, token in enumerate(tokens)}
    for number, (left, right) in enumerate(merges):
        if not {left, right, left + right} <= vocabulary.keys():
            pair = f"{left} {right}"
            raise UserError(f"{where}: {_KEY}merges[{number}]={pair!r:.80} does not make a token of {_KEY}tokens")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in _IGNORE_MERGES))
    if pre == "qwen2":  # GGUF has no name for the normaliser of these models
        tokenizer.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in _SPLITS[pre]]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece(tokens: list[str], scores: list[float], kinds: list[int], prefix: bool) -> Tokenizer:
    """Sentencepiece's BPE with byte fallback, as in LLaMA 1 and 2; `prefix` prepends a space to a text."""
    vocabulary = {token: id for id, token in enumerate(tokens)}
    unknown = tokens[kinds.index(Kind.UNKNOWN)] if Kind.UNKNOWN in kinds else None
    merges = _merges(vocabulary, tokens, scores, kinds)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer


def _merges(
    vocabulary: dict[str, int], tokens: list[str], scores: list[float], kinds: list[int]
) -> list[tuple[str, str]]:
    """Every pair that makes a piece, best score first: sentencepiece merges in that order."""
    ranked = []
    for id, token in enumerate(tokens):
        if kinds[id] != Kind.NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((-scores[id], id, vocabulary[left], vocabulary[right]))
    return [(tokens[left], tokens[right]) for _, _, left, right in sorted(ranked)]


def finish(
    tokenizer: Tokenizer, tokens: list[str], kinds: list[int], special: Special, template: str = ""
) -> PreTrainedTokenizerFast:
    """Adds control and user-defined tokens (which are never split), BOS, the special tokens and the chat template."""
    tokenizer.add_special_tokens([_unsplit(token) for token, kind in zip(tokens, kinds) if kind == Kind.CONTROL])
    tokenizer.add_tokens([_unsplit(token) for token, kind in zip(tokens, kinds) if kind == Kind.USER_DEFINED])
    if special.add_bos and special.bos is not None:
        bos = tokens[special.bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, special.bos)]
        )
    roles = {"bos": special.bos, "eos": special.eos, "unk": special.unk, "pad": special.pad}
    named: dict[str, Any] = {f"{role}_token": tokens[id] for role, id in roles.items() if id is not None}
    if template:
        named["chat_template"] = template
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        **named,
    )


def _unsplit(token: str) -> AddedToken:
    return AddedToken(token, normalized=False)
