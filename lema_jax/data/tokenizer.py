"""Tokenizers in Hugging Face's format: loading anyone's, and making a small one that keeps whole numbers whole."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lema_jax import storage
from lema_jax.data.encode import adds_bos
from lema_jax.errors import UserError

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
LARGEST_NUMBER = 400  # whole numbers up to here are one token each in `train_bpe`'s vocabulary
_SPACE = "Ġ"  # how the byte-level alphabet writes a space
# Words with the space before them, runs of digits, runs of anything else, white space: digits never share a token
# with letters or signs.
_PIECES = r" ?\p{L}+| ?\d+| ?[^\s\p{L}\d]+|\s+(?!\S)|\s+"


def load(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`, or in its `tokenizer/` (as a checkpoint or a data set keeps it).

    Raises:
      UserError: no `tokenizer.json` there, one that cannot be read, or one without an end-of-sequence token.
    """
    places = (str(folder), f"{folder}/tokenizer")
    found = next((place for place in places if (storage.place(place) / "tokenizer.json").is_file()), None)
    if found is None:
        raise UserError(
            f"no tokenizer in {folder}: neither tokenizer.json nor tokenizer/tokenizer.json is there; name a folder in "
            "Hugging Face's layout, a checkpoint of convert's or train's, or a data set of build_data's"
        )
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(storage.here(found))
    except Exception as error:  # the tokenizers library raises bare Exception for a malformed file
        raise UserError(f"cannot read the tokenizer in {found}: {error}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{found}/tokenizer_config.json: eos_token is missing; a completion could never end")
    return tokenizer


def as_chat(message: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """The prompt of a user's message by the tokenizer's chat template, up to where the assistant's answer begins.

    transformers runs templates in Jinja's sandbox. A BOS that the template writes out is left away where `prompt_ids`
    puts one itself.

    Raises:
      UserError: there is no template, or it fails.
    """
    where = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise UserError(f"{where}: the tokenizer has no chat template (chat_template.jinja); ask in another style")
    messages = [{"role": "user", "content": message}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of its maker's, which can fail in any way
        raise UserError(f"{where}: the chat template cannot be used: {error}") from None
    return text.removeprefix(tokenizer.bos_token) if adds_bos(tokenizer) else text


def save(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` into `folder`, made where it is absent.

    That a text begins with BOS is in `tokenizer.json`, as its post-processor.
    """
    tokenizer.save_pretrained(folder)
    config = Path(folder) / "tokenizer_config.json"
    # The class by its name of old, which transformers before 5 (and servers that stay there) know too.
    settings = json.loads(config.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    storage.write(config, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """16 hex digits that two tokenizers share when they turn every prompt and completion into the same ids."""
    body = json.loads(tokenizer.backend_tokenizer.to_str())
    shaping = {key: value for key, value in body.items() if key not in ("truncation", "padding")}
    specials = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    text = json.dumps([shaping, specials], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_bpe(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocab_size` ids in which " 0" to " 400" are one token each, whatever the texts.

    A small model learns arithmetic far sooner on whole numbers than digit by digit. The same texts in the same order
    give the same tokenizer. Any text comes back unchanged from `decode(encode(text))`. The vocabulary is smaller than
    asked for where the texts offer no more pairs to merge.

    Raises:
      UserError: a `vocab_size` too small for the bytes, the special tokens and the numbers.
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
    # Numbers after a space have their merges already; those after a sign ("$12") are left for the texts to decide.
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
    pieces = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    return pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _number_merges() -> list[tuple[str, str]]:
    """Merges that build " n" digit by digit from the left. They rank before all others, so nothing comes between."""
    merges = []
    for n in sorted(range(LARGEST_NUMBER + 1), key=lambda n: (len(str(n)), n)):
        digits = str(n)
        merges.append((_SPACE + digits[:-1], digits[-1]))
    return merges
