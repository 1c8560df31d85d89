"""Tokenizers in Hugging Face's format: load any, and train a small one with one token per whole number."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lema_jax import digests, storage
from lema_jax.data import template, tokenizer_folder
from lema_jax.errors import UserError

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
LARGEST_NUMBER = 400  # `train_bpe` has one token for each whole number up to here
_SPACE = "Ġ"  # a space in the byte-level alphabet
# Words and runs of digits or of other characters, each with the space before it; white space. Digits never share a
# token with letters or punctuation.
_WORDS = r" ?\p{L}+| ?\d+| ?[^\s\p{L}\d]+|\s+(?!\S)|\s+"


def load(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder, or of its subfolder `tokenizer/` (checkpoints, data sets).

    Raises:
      UserError: there is none, it has no end-of-sequence token, or see `tokenizer_folder.load`.
    """
    found = place(folder)
    tokenizer = tokenizer_folder.load(found)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{found}/tokenizer_config.json: eos_token is missing; a completion could never end")
    return tokenizer


def place(folder: str | Path) -> Path:
    """The local folder of the tokenizer's files; a UserError if there are none."""
    for found in (storage.here(folder), storage.here(f"{folder}/tokenizer")):
        if tokenizer_folder.holds_one(found):
            storage.require_own_files(found)
            return found
    raise UserError(
        f"no tokenizer in {folder}: neither there nor in its tokenizer/ is a tokenizer.json or a tokenizer.model; name "
        "a folder in Hugging Face's layout, a checkpoint of convert's or train's, or a data set of build_data's"
    )


def as_chat(message: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """The prompt of a user's message by the tokenizer's chat template, up to the start of the assistant's answer.

    The template runs in a sandboxed process (`template`) and writes all special tokens itself, BOS if any: encode the
    result with `prompt_ids(…, rendered=True)`, which adds none.

    Raises:
      UserError: there is no template, or it fails.
    """
    where = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise UserError(f"{where}: the tokenizer has no chat template (chat_template.jinja); ask in another style")
    messages = [{"role": "user", "content": message}]
    try:
        chosen = tokenizer.get_chat_template()
        if note := template.note(chosen):
            digests.warn_once(note)
        return template.render(chosen, messages, tokenizer.special_tokens_map)
    except (template.TemplateError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: the chat template cannot be used: {reason:.300}") from None


def save(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json` and a chat template into `folder`, created if absent.

    `tokenizer.json` then has everything that `load` found in the original folder, BOS as its post-processor.
    """
    several = isinstance(tokenizer.chat_template, dict)  # as files they would need a subfolder
    tokenizer.save_pretrained(folder, save_jinja_files=not several)
    config = Path(folder) / "tokenizer_config.json"
    # The old name of the class, which transformers before 5 knows too.
    settings = json.loads(config.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    storage.write(config, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """16 hex digits, equal for two tokenizers that give the same ids for every text."""
    body = json.loads(tokenizer.backend_tokenizer.to_str())
    shaping = {key: value for key, value in body.items() if key not in ("truncation", "padding")}
    specials = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    text = json.dumps([shaping, specials], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE of at most `vocab_size` ids, in which " 0" to " 400" are always one token each.

    A small model learns arithmetic much faster on such tokens than on digits. The same texts in the same order give the
    same tokenizer, and `decode(encode(text))` is the identity. The vocabulary is smaller than `vocab_size` if the texts
    have no more pairs to merge.

    Raises:
      UserError: `vocab_size` is too small for the bytes, the special tokens and the numbers.
    """
    numbers = _number_merges()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    reserved = 3 + len(alphabet) + len(numbers)
    if vocab_size < reserved:
        raise UserError(
            f"a tokenizer of {vocab_size} ids is too small; bytes, special tokens and numbers take {reserved}"
        )
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(numbers),
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    # Numbers after a space already have their merges; those after another character ("$12") are learnt from the texts.
    trained.train_from_iterator((re.sub(r" \d+", " ", text) for text in texts), trainer)
    learned = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    merges = numbers + learned
    vocabulary = {token: id for id, token in enumerate([BOS, EOS, PAD, *alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.add_special_tokens([BOS, EOS, PAD])
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    assert all(len(tokenizer.encode(f" {n}", add_special_tokens=False)) == 1 for n in range(LARGEST_NUMBER + 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _number_merges() -> list[tuple[str, str]]:
    """Merges that build " n" digit by digit from the left; they rank before all learnt ones."""
    merges = []
    for n in sorted(range(LARGEST_NUMBER + 1), key=lambda n: (len(str(n)), n)):
        digits = str(n)
        merges.append((_SPACE + digits[:-1], digits[-1]))
    return merges
