"""Tokenizers from a GGUF's metadata: byte-level BPE by its definition and, without digits, transformers' reading."""

import functools
import itertools
import json
import re
from pathlib import Path

import pytest
from gguf_files import write
from memory import tensors
from sentencepiece import SentencePieceProcessor

from lema_jax.data import encode
from lema_jax.data import tokenizer as tokenizers_on_disk
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.weights import vocabulary
from lema_jax.weights.gguf import Gguf
from tests.tokenizer_files import SENTENCES, sentencepiece_model

UNICODE = [
    "",
    " ",
    "\n\n\t x",
    "naïve café — “quotes” … €5 ½ Ⅷ ² ٣٤٥ १२",
    "日本語のテキスト。한국어 русский עברית العربية",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 zalgo ḧ̴e\u0301llo",
    "$1,234.56 + 0.5% = 10/3 <<3*4=12>>12 x_1^2 \\frac{1}{2}",
    "it's we'll THEY'RE I'd don't 'tis  two  spaces   three\u00a0nbsp\u3000wide",
    "\u0000\u0007\ufeff\U0010ffff",
    "<|im_start|>user\nhi 12<|im_end|><|endoftext|>",
]


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable sign for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


class PlainBpe:
    """Byte-level BPE by its definition: split, spell in bytes, join the best-ranked pair until none is left."""

    def __init__(self, file: Gguf, patterns: list[str]):
        regex = pytest.importorskip("regex")  # knows \p{N}; a dependency of transformers
        tokens = file.get("tokenizer.ggml.tokens")
        kinds = file.get("tokenizer.ggml.token_type")
        self.ids = {token: id for id, token in enumerate(tokens)}
        self.ranks = {tuple(pair.split(" ")): rank for rank, pair in enumerate(file.get("tokenizer.ggml.merges"))}
        self.patterns = [regex.compile(pattern) for pattern in patterns]
        self.special = regex.compile("|".join(regex.escape(t) for t, kind in zip(tokens, kinds) if kind == 3))
        self.alphabet = byte_alphabet()

    def __call__(self, text: str) -> list[int]:
        ids, at = [], 0
        for match in self.special.finditer(text):
            ids += [*self.plain(text[at : match.start()]), self.ids[match[0]]]
            at = match.end()
        return ids + self.plain(text[at:])

    def plain(self, text: str) -> list[int]:
        pieces = [text]
        for pattern in self.patterns:
            pieces = list(itertools.chain.from_iterable(self.cut(pattern, piece) for piece in pieces))
        return [id for piece in pieces for id in self.merge(piece)]

    @staticmethod
    def cut(pattern, text: str) -> list[str]:
        """The matches and what lies between them."""
        found, at = [], 0
        for match in pattern.finditer(text):
            found += [text[at : match.start()], match[0]]
            at = match.end()
        return [piece for piece in [*found, text[at:]] if piece]

    @functools.cache  # noqa: B019 (lives as long as the module's fixture)
    def merge(self, piece: str) -> tuple[int, ...]:
        parts = [self.alphabet[byte] for byte in piece.encode()]
        while True:
            ranked = [(self.ranks.get(pair, len(self.ranks)), i) for i, pair in enumerate(itertools.pairwise(parts))]
            if not ranked or min(ranked)[0] == len(self.ranks):
                return tuple(self.ids[part] for part in parts)
            best = parts[min(ranked)[1]], parts[min(ranked)[1] + 1]
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == best:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined


@pytest.fixture(scope="module")
def smollm2(smollm2_gguf):
    file = Gguf(smollm2_gguf)
    return file, vocabulary.from_gguf(file)


@pytest.fixture(scope="module")
def questions(data_dir):
    """3,000 questions of GSM8K's, then 2,000 problems of MATH's, full of digits and LaTeX."""
    gsm8k = (data_dir / "gsm8k" / "train.jsonl").read_text().splitlines()[:3000]
    math = (data_dir / "math" / "train.jsonl").read_text().splitlines()[:2000]
    return [json.loads(line)["question"] for line in gsm8k] + [json.loads(line)["problem"] for line in math]


def test_smollm2_ids_by_the_definition(smollm2, questions):
    file, tokenizer = smollm2
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    plain = PlainBpe(file, [r"\p{N}", gpt2])
    for text in questions + UNICODE:
        ids = tokenizer(text).input_ids
        assert ids == plain(text), text
        assert tokenizer.decode(ids) == text


def test_smollm2_ids_are_transformers_where_there_are_no_digits(smollm2, smollm2_gguf, questions):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    _, tokenizer = smollm2
    no_digits = re.compile(r"[\d½Ⅷ²]")  # transformers' reader does not know that this vocabulary cuts every digit off
    texts = [no_digits.sub("", text) for text in questions[:1000] + UNICODE]
    assert [tokenizer(t).input_ids for t in texts] == [theirs(t).input_ids for t in texts]


def test_smollm2_roles(smollm2, tmp_path):
    _, tokenizer = smollm2
    roles = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert roles == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert not encode.adds_bos(tokenizer)
    assert len(tokenizer) == 49152
    chat = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    tokenizers_on_disk.save(tokenizer, tmp_path)
    again = tokenizers_on_disk.load(tmp_path)
    assert tokenizers_on_disk.fingerprint(again) == tokenizers_on_disk.fingerprint(tokenizer)
    assert again.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)


TINY = LlamaConfig(300, 32, 32, 1, 2, 2, 16)


def byte_level_gguf(path: Path, pre: str, **more) -> Gguf:
    """A GGUF whose vocabulary is the bytes, "12", "123", and two control tokens."""
    tokens = [*byte_alphabet().values(), "12", "123", "ab", "Ġa", "<bos>", "<eos>"]
    tokens += [f"[{i}]" for i in range(300 - len(tokens))]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in ("<bos>", "<eos>") else 1 for token in tokens],
        "tokenizer.ggml.merges": ["1 2", "12 3", "Ġ a", "a b"],
        "tokenizer.ggml.bos_token_id": tokens.index("<bos>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<eos>"),
    }
    return Gguf(write(path, TINY, tensors(TINY), more=metadata | more))


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["123", "4", "Ġa", "b"]),
        ("smollm", ["1", "2", "3", "4", "Ġa", "b"]),
        ("llama-bpe", ["123", "4", "Ġa", "b"]),
        ("qwen2", ["1", "2", "3", "4", "Ġa", "b"]),
    ],
)
def test_digits_are_split_as_the_pre_tokenizer_says(tmp_path, pre, pieces):
    tokenizer = vocabulary.from_gguf(byte_level_gguf(tmp_path / "m.gguf", pre))
    assert tokenizer.convert_ids_to_tokens(tokenizer("1234 ab", add_special_tokens=False).input_ids) == pieces
    assert tokenizer.decode(tokenizer("1234 ab").input_ids, skip_special_tokens=True) == "1234 ab"


def test_bos_is_added_where_the_model_wants_it(tmp_path):
    llama3 = vocabulary.from_gguf(byte_level_gguf(tmp_path / "a.gguf", "llama-bpe"))
    assert llama3("a").input_ids[0] == llama3.bos_token_id
    adding = {"tokenizer.ggml.add_bos_token": True}
    told = vocabulary.from_gguf(byte_level_gguf(tmp_path / "b.gguf", "smollm", **adding))
    assert encode.adds_bos(told)
    assert vocabulary.bos_rule(Gguf(tmp_path / "b.gguf")) == "by its tokenizer.ggml.add_bos_token"
    assert not encode.adds_bos(vocabulary.from_gguf(byte_level_gguf(tmp_path / "c.gguf", "smollm")))
    assert told.pad_token is None


def test_an_unknown_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.ggml\.pre='tekken'"):
        vocabulary.from_gguf(byte_level_gguf(tmp_path / "m.gguf", "tekken"))
    with pytest.raises(UserError, match=r"tokenizer\.ggml\.model='bert'"):
        vocabulary.from_gguf(byte_level_gguf(tmp_path / "n.gguf", "smollm", **{"tokenizer.ggml.model": "bert"}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((f"{role}_token_id", id) for role in ("bos", "eos", "unknown", "padding") for id in (300, "1", True, [1])),
        ("eot_token_id", 300),
        ("tokens", [1, 2]),
        ("tokens", "text"),
        ("token_type", [1] * 299),
        ("token_type", ["1"] * 300),
        ("merges", ["1 2", "1 zz"]),
        ("merges", ["zz 1"]),
        ("merges", ["2 1"]),
        ("merges", ["12"]),
        ("merges", [1]),
        ("pre", [1]),
        ("model", [1]),
        ("add_bos_token", "yes"),
        ("scores", [0.0] * 299),
        ("scores", [0] * 300),
        ("add_space_prefix", 1),
    ],
)
def test_a_value_that_is_none_of_the_vocabulary_is_one_line_that_names_its_key(tmp_path, key, value):
    sentencepiece = {"model": "llama", "scores": [0.0] * 300} if key in ("scores", "add_space_prefix") else {}
    more = {f"tokenizer.ggml.{name}": given for name, given in (sentencepiece | {key: value}).items()}
    file = byte_level_gguf(tmp_path / "m.gguf", "smollm", **more)
    with pytest.raises(UserError, match=rf"m\.gguf: tokenizer\.ggml\.{key}") as raised:
        vocabulary.eos_ids(file), vocabulary.from_gguf(file)
    assert "\n" not in str(raised.value)


def test_text_in_a_gguf_that_is_no_text_names_its_key(tmp_path):
    path = tmp_path / "m.gguf"
    byte_level_gguf(path, "smollm")
    path.write_bytes(path.read_bytes().replace(b"<bos>", b"<b\xffs>"))
    with pytest.raises(UserError, match=r"tokenizer\.ggml\.tokens holds text that is not UTF-8"):
        vocabulary.from_gguf(Gguf(path))


def test_tokens_that_end_a_text_a_turn_or_a_message_end_an_answer(tmp_path):
    plain = byte_level_gguf(tmp_path / "a.gguf", "llama-bpe")
    end = plain.get("tokenizer.ggml.eos_token_id")
    assert vocabulary.eos_ids(plain) == (end,)
    turns = {"tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 9}
    assert vocabulary.eos_ids(byte_level_gguf(tmp_path / "b.gguf", "llama-bpe", **turns)) == (end, 7, 9)
    unnamed = [*plain.get("tokenizer.ggml.tokens")[:-2], "<|im_end|>", "<|endoftext|>"]
    for kind, ends in ((3, (end, 298, 299)), (1, (end,))):  # control tokens, or words that look like them
        more = {"tokenizer.ggml.tokens": unnamed, "tokenizer.ggml.token_type": [1] * 298 + [kind] * 2}
        assert vocabulary.eos_ids(byte_level_gguf(tmp_path / "c.gguf", "llama-bpe", **more)) == ends


def test_text_of_qwen2_is_normalised_as_in_its_tokenizer(tmp_path):
    tokenizer = vocabulary.from_gguf(byte_level_gguf(tmp_path / "m.gguf", "qwen2"))
    assert tokenizer("cafe\u0301").input_ids == tokenizer("caf\u00e9").input_ids


def test_a_sentencepiece_vocabulary_gives_the_ids_of_sentencepiece(tmp_path):
    theirs = SentencePieceProcessor(model_proto=sentencepiece_model())
    size = theirs.vocab_size()
    kinds = [2 * theirs.is_unknown(i) or 3 * theirs.is_control(i) or 6 * theirs.is_byte(i) or 1 for i in range(size)]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [theirs.id_to_piece(i) for i in range(size)],
        "tokenizer.ggml.scores": [theirs.get_score(i) for i in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    config = LlamaConfig(size, 32, 32, 1, 2, 2, 16)
    file = Gguf(write(tmp_path / "m.gguf", config, tensors(config), more=metadata))
    tokenizer = vocabulary.from_gguf(file)
    for text in [*SENTENCES, *UNICODE, "   x  y ", "▁ already"]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == theirs.encode(text), text
        assert tokenizer.decode(ids) == theirs.decode(ids) == text.replace("▁", " ")
        assert tokenizer(text).input_ids == [1, *ids]
    assert "as llama.cpp does" in vocabulary.bos_rule(file)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, None)
