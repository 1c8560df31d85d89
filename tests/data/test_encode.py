"""Encoding: prompt and completion apart, loss on the completion and EOS alone, nothing is ever cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from lema_jax.data import tokenizer
from lema_jax.data.encode import Limits, adds_bos, encode, prompt_ids
from lema_jax.records import Example

NO_LIMITS = Limits(None, None, None)


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return tokenizer.train_bpe(["How many? There are 3."] * 3, 700)


@pytest.fixture
def bare(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """One that begins no text with BOS although it has one, as SmolLM2's."""
    backend = type(words.backend_tokenizer).from_str(words.backend_tokenizer.to_str())
    backend.post_processor = processors.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def example(prompt: str, completion: str) -> Example:
    return Example(id="e", kind="cot", problem_id="p", source="gold", prompt=prompt, completion=completion)


@given(prompt=st.text(), completion=st.text())
def test_prompt_then_completion_then_eos(words: PreTrainedTokenizerFast, prompt: str, completion: str) -> None:
    (encoded,) = encode([example(prompt, completion)], words, NO_LIMITS)
    assert encoded is not None
    asked = prompt_ids(prompt, words)
    assert encoded.tokens[: len(asked)].tolist() == asked
    assert asked[0] == words.bos_token_id
    assert words.decode(asked[1:]) == prompt
    learned = encoded.tokens[encoded.weights == 1]
    assert len(learned) == len(encoded.tokens) - len(asked)
    assert learned[-1] == words.eos_token_id
    assert words.decode(learned[:-1]) == completion


def test_bos_only_where_the_tokenizer_puts_one(words: PreTrainedTokenizerFast, bare: PreTrainedTokenizerFast) -> None:
    assert (adds_bos(words), adds_bos(bare)) == (True, False)
    (encoded,) = encode([example("How", "3")], bare, NO_LIMITS)
    assert encoded is not None
    assert bare.bos_token_id not in encoded.tokens
    assert prompt_ids("How", bare) == prompt_ids("How", words)[1:]


def test_over_long_is_none_and_at_the_limit_is_whole(words: PreTrainedTokenizerFast) -> None:
    one = example("How many?", "There are 3.")
    (whole,) = encode([one], words, NO_LIMITS)
    assert whole is not None
    size, learned = len(whole.tokens), int(whole.weights.sum())
    fitting = Limits(size - learned, learned, size)
    (kept,) = encode([one], words, fitting)
    assert kept is not None
    assert kept.tokens.tolist() == whole.tokens.tolist()
    for limits in (
        Limits(size - learned - 1, None, None),
        Limits(None, learned - 1, None),
        Limits(None, None, size - 1),
    ):
        assert encode([one], words, limits) == [None]


def test_each_example_stands_for_itself(words: PreTrainedTokenizerFast) -> None:
    rows = [example("a", "b"), example("How many? " * 40, "3"), example("", "")]
    together = encode(rows, words, Limits(20, 20, None))
    assert together[1] is None
    for row, encoded in zip(rows, together):
        (alone,) = encode([row], words, Limits(20, 20, None))
        assert (encoded is None) == (alone is None)
        assert encoded is None or alone is None or encoded.tokens.tolist() == alone.tokens.tolist()
    assert encode([], words, NO_LIMITS) == []
