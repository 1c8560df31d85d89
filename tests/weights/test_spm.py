"""Sentencepiece files against the sentencepiece library: the same ids, in and back."""

import io
import json

import pytest
from gguf_files import write
from memory import tensors

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.weights import spm, vocabulary
from lema_jax.weights.gguf import Gguf

sentencepiece = pytest.importorskip("sentencepiece", reason="the independent implementation")

UNICODE = [
    "",
    " ",
    "   x  y ",
    "a\n\nb\tc",
    "٣é²½𝔘 日本語 한국어 עברית",
    "😀👩‍👩‍👧‍👦 e\u0301llo \ufeff",
    "▁ already",
    "$1,234.56 + 0.5% = 10/3",
]


def train(texts, **changes):
    """A model with LLaMA's settings."""
    settings = {
        "vocab_size": 1000,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "character_coverage": 0.9995,
        "num_threads": 1,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, **settings | changes)
    return model.getvalue()


@pytest.fixture(scope="module")
def texts(data_dir):
    """4,500 questions with answers of GSM8K's, then 2,000 problems with solutions of MATH's."""
    gsm8k = (data_dir / "gsm8k" / "train.jsonl").read_text().splitlines()[:4500]
    math = (data_dir / "math" / "train.jsonl").read_text().splitlines()[:2000]
    rows = [json.loads(line) for line in gsm8k + math]
    return ["\n".join(row[key] for key in ("question", "answer", "problem", "solution") if key in row) for row in rows]


@pytest.fixture(scope="module")
def model(texts):
    return train(texts[:1500])


def test_ids_are_those_of_sentencepiece(model, texts, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model)
    tokenizer = spm.load(tmp_path / "tokenizer.model")
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in texts[1500:] + UNICODE:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == theirs.encode(text), text
        assert tokenizer.decode(ids) == theirs.decode(ids) == text.replace("▁", " ")
    assert tokenizer("x").input_ids[0] == theirs.bos_id()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, None)


def test_the_same_vocabulary_in_a_gguf_gives_the_same_ids(model, texts, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
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
    path = write(tmp_path / "m.gguf", config, tensors(config), more=metadata)
    one, other = vocabulary.from_gguf(Gguf(path)), spm.load(tmp_path / "tokenizer.model")
    assert [one(t).input_ids for t in texts[:200] + UNICODE] == [other(t).input_ids for t in texts[:200] + UNICODE]


def test_models_that_are_not_llamas_are_refused(texts, tmp_path):
    path = tmp_path / "tokenizer.model"
    for changes, named in [
        ({"model_type": "unigram"}, "BPE with byte fallback"),
        ({"byte_fallback": False}, "BPE with byte fallback"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalises"),
        ({"remove_extra_whitespaces": True}, "normalises"),
    ]:
        path.write_bytes(train(texts[:200], vocab_size=400, **changes))
        with pytest.raises(UserError, match=named):
            spm.load(path)


def test_damaged_files_are_refused(model, tmp_path):
    path = tmp_path / "tokenizer.model"
    with pytest.raises(UserError, match="cannot read"):
        spm.load(path)
    for content in [b"", b"not a model", model[: len(model) // 2], b"\x80" * 40]:
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a sentencepiece model"):
            spm.load(path)
