"""Loads a tokenizer folder in Hugging Face's layout like transformers' AutoTokenizer, or rejects it.

transformers chooses the tokenization by `tokenizer_config.json`, `config.json` and the files present. This module
checks what transformers ignores silently: settings of a wrong type, tokens whose id differs from the folder's, and a
sentencepiece file that transformers tokenises differently from sentencepiece.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import pydantic
from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
from transformers import PreTrainedTokenizerFast

from lema_jax.errors import UserError

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
JSON, SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
_AS_IT_IS = (None, "PreTrainedTokenizerFast", "TokenizersBackend")  # classes that take tokenizer.json as it stands
_PROBES = 2_000  # pieces of a sentencepiece file to compare
_TEXTS = ("2 + 3 = 5.", "a\n\nb\tc", "naïve café ½ x² Ⅷ", "日本語 한국어", "😀👩‍👧 e\u0301", "two  spaces   three")

_Text = Annotated[str, pydantic.Field(min_length=1)]
T = TypeVar("T")
Token = TypeVar("Token")
_Strict = pydantic.ConfigDict(extra="ignore", strict=True)


class _Added(pydantic.BaseModel):
    model_config = _Strict
    content: _Text
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False
    special: bool = False


class _Marked(_Added):
    """An added token in `tokenizer_config.json`, where a plain string is allowed too."""

    mark: Literal["AddedToken"] = pydantic.Field(alias="__type")


class _Roles(pydantic.BaseModel, Generic[Token]):
    model_config = _Strict
    bos_token: Token | None = None
    eos_token: Token | None = None
    unk_token: Token | None = None
    pad_token: Token | None = None
    sep_token: Token | None = None
    cls_token: Token | None = None
    mask_token: Token | None = None
    additional_special_tokens: list[_Text | _Marked] | None = None
    extra_special_tokens: list[Token] | dict[str, _Text] | None = None


class _Template(pydantic.BaseModel):
    model_config = _Strict
    name: _Text
    template: str


class _Settings(_Roles[_Text | _Marked]):
    tokenizer_class: str | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_prefix_space: bool | None = None
    legacy: bool | None = None
    model_max_length: int | float | None = None
    added_tokens_decoder: dict[Annotated[str, pydantic.Field(pattern=r"^\d+$")], _Added] = {}
    chat_template: str | list[_Template] | None = None
    padding_side: Literal["left", "right"] = "right"
    truncation_side: Literal["left", "right"] = "right"
    split_special_tokens: bool = False
    model_input_names: list[str] = []
    init_inputs: Annotated[list[Any], pydantic.Field(max_length=0)] = []
    auto_map: dict[str, Any] | Annotated[list[str | None], pydantic.Field(min_length=2)] = {}


_SETTINGS, _ROLES = pydantic.TypeAdapter(_Settings), pydantic.TypeAdapter(_Roles[_Text | _Added])
_IDS = pydantic.TypeAdapter(dict[_Text, Annotated[int, pydantic.Field(strict=True, ge=0)]])


def holds_one(folder: Path) -> bool:
    """Whether a local folder contains a tokenizer."""
    return any((folder / name).is_file() for name in (JSON, SENTENCEPIECE))


def load(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a local folder.

    Raises:
      UserError: a file is missing, damaged or has a key of a wrong type; transformers cannot load it, or needs code
        from the folder; a token's id differs from a file's; or see `_check_sentencepiece`.
    """
    settings, ids = _read(folder / CONFIG, _SETTINGS), _read(folder / ADDED, _IDS)
    _read(folder / SPECIAL, _ROLES)
    sentencepiece = None if (folder / JSON).is_file() else _sentencepiece(folder / SENTENCEPIECE, settings)
    try:
        if not sentencepiece and settings.tokenizer_class in _AS_IT_IS and not (folder / "config.json").exists():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        else:
            from transformers import AutoTokenizer  # imports torch if installed: only when needed

            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        # the tokenizers library raises a bare Exception for a malformed file, and panics with a BaseException on others
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read the tokenizer in {folder}: {reason:.500}") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        name = type(tokenizer).__name__
        raise UserError(
            f"{folder / CONFIG}: tokenizer_class {name} is none of the tokenizers library's; save a fast one"
        )
    given = [(ADDED, token, id) for token, id in ids.items()]
    given += [(CONFIG, token.content, int(id)) for id, token in settings.added_tokens_decoder.items()]
    _check_ids(folder, tokenizer, given)
    if sentencepiece is not None:
        _check_sentencepiece(folder / SENTENCEPIECE, tokenizer, sentencepiece)
    return tokenizer


def bos_rule(folder: Path) -> str:
    """The setting that decides whether the tokenizer of `load` puts BOS before a text, for a message."""
    setting = _read(folder / CONFIG, _SETTINGS).add_bos_token
    if (folder / JSON).is_file():
        ignored = "" if setting is None else f", not {CONFIG}'s add_bos_token={json.dumps(setting)}, as transformers"
        return f"by {JSON}'s post_processor{ignored}"
    if setting is None:
        return f"as transformers does where {CONFIG} has no add_bos_token"
    return f"by {CONFIG}'s add_bos_token={json.dumps(setting)}"


def _read(path: Path, kind: "pydantic.TypeAdapter[T]") -> T:
    """The settings of a file, which may be absent; a UserError names every key of a wrong type."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    try:
        return kind.validate_python(content)
    except pydantic.ValidationError as error:
        raise UserError(f"{path}: {'; '.join(_problems(error, content))}") from None


def _problems(error: pydantic.ValidationError, content: Any) -> list[str]:
    """One message per invalid key; for a union pydantic reports one per member."""
    if not isinstance(content, dict):
        return [f"it holds {json.dumps(content):.80}, not an object of settings"]
    found: dict[str, str] = {}
    for one in error.errors(include_url=False):
        key = str(one["loc"][0])
        value = content[key]
        why = "an empty text names no token; name one, or take the key out" if value == "" else one["msg"]
        found.setdefault(key, f"{key}={json.dumps(value, ensure_ascii=False):.80}: {why}")
    return list(found.values())


def _check_ids(folder: Path, tokenizer: PreTrainedTokenizerFast, given: list[tuple[str, str, int]]) -> None:
    """Every token has the id that the files give it, which is its row of the embedding."""
    vocabulary = tokenizer.get_vocab()
    for name, token, id in given:
        if (found := vocabulary.get(token)) != id:
            reads = "knows no such token" if found is None else f"gives it id {found}"
            raise UserError(f"{folder / name}: {token!r} has id {id}, but transformers {reads}; mend the file")


def _sentencepiece(path: Path, settings: _Settings) -> SentencePieceProcessor:
    """The sentencepiece library's tokenizer for a file, with or without the dummy prefix as the settings say.

    Raises:
      UserError: the file is missing or damaged, or of another format (such as LLaMA 3's `tokenizer.model`).
    """
    try:
        described = ModelProto.FromString(path.read_bytes())
        if settings.add_prefix_space is False:
            described.normalizer_spec.add_dummy_prefix = False
        if not described.pieces:
            raise RuntimeError("it has no pieces")
        return SentencePieceProcessor(model_proto=described.SerializeToString())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (DecodeError, RuntimeError) as error:
        raise UserError(f"{path} is not a sentencepiece model, or is cut short ({error}); add a {JSON}") from None


def _check_sentencepiece(path: Path, tokenizer: PreTrainedTokenizerFast, theirs: SentencePieceProcessor) -> None:
    """Compares transformers' tokenization of a sentencepiece file with the library's, on the file's own pieces.

    Raises:
      UserError: they differ, for example because the class ignores the file's normalisation or model type.
        transformers uses a generic class if none is named.
    """
    added = tokenizer.get_added_vocab()  # unknown to sentencepiece
    pieces = [theirs.id_to_piece(id) for id in range(0, len(theirs), -(-len(theirs) // _PROBES))]
    texts = [*_TEXTS, *("x" + piece.replace("▁", " ") for piece in pieces)]
    texts = [text for text in texts if not any(token in text for token in added)]
    for text, expected in zip(texts, theirs.encode(texts)):
        if (found := tokenizer(text, add_special_tokens=False).input_ids) != expected:
            raise UserError(
                f"{path}: transformers' {type(tokenizer).__name__} reads {text!r} as {found}, sentencepiece as "
                f"{expected}; write the model's class into {CONFIG} (LLaMA 1 and 2: "
                '{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true}), '
                f"or add a {JSON}"
            )
