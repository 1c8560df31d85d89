"""Answers of models with stretched positions, padded, batched and refilled, are those of transformers' generate."""

import copy

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.data import encode, tokenizer
from lema_jax.generation import lengths
from lema_jax.generation.engine import Engine
from lema_jax.generation.lengths import bucket, chunks
from lema_jax.generation.score import Pair, score
from lema_jax.generation.student import Student
from lema_jax.model import cache as caches
from lema_jax.model import decode
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.model.llama import Llama
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.weights import hf_config, names

torch = pytest.importorskip("torch")
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding  # noqa: E402

from tests import hf_oracle  # noqa: E402

RAW = {
    "model_type": "llama",
    "vocab_size": 704,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 60,
    "eos_token_id": 1,
}
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 30}
ROPES = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "yarn": {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 60},
    "yarn without a factor": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 20},
    "llama3": {"rope_type": "llama3", **LLAMA3},
}
LENGTHS = (3, 31, 50, 57, 59, 60, 61, 75, 97, 98, 130, 40)  # of prompts, around and beyond the 60 of the model
NEW = 9


@pytest.fixture(scope="module")
def words():
    return tokenizer.train_bpe(["one two three four five six seven eight nine ten"], 704)


def prompts(words, count: int, beginning: int = 0):
    """Texts of so many tokens each, BOS among them, of which the first ones may be the same."""
    texts = []
    for number, length in enumerate(LENGTHS[:count]):
        seeds = [np.random.default_rng(99)] * beginning + [np.random.default_rng(number)] * length
        numbers = [int(random.integers(0, 400)) for random in seeds[: length - 1]]
        texts.append("".join(f" {one}" for one in numbers))
        assert len(encode.prompt_ids(texts[-1], words)) == length
    return texts


def student(words, theirs, config) -> Student:
    params = names.load_model(hf_oracle.StateDict(theirs), config)
    model, mesh = Llama(config, Compute()), make_mesh(MeshConfig(), jax.devices()[:1])
    return Student(model, {"params": params}, words, mesh, ())


def generated(theirs, ids: list[int]) -> list[int]:
    """Alone, and by positions that no earlier text has stretched."""
    theirs.model.rotary_emb = LlamaRotaryEmbedding(copy.deepcopy(theirs.config))
    given = torch.tensor([ids])
    how = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": 1, "pad_token_id": 2}
    return theirs.generate(given, attention_mask=torch.ones_like(given), **how)[0, len(ids) :].tolist()


QUICK = (("dynamic", 0), ("yarn", 40))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rope", "shared"),
    [
        pytest.param(
            rope,
            shared,
            id=f"{rope}, {'one beginning' if shared else 'apart'}",
            marks=() if (rope, shared) in QUICK else pytest.mark.long,
        )
        for rope in ROPES
        for shared in (0, 40)
    ],
)
def test_greedy_answers_are_those_of_generate(words, rope, shared, monkeypatch):
    monkeypatch.setattr(lengths, "CHUNK", 48)
    raw = RAW | {"rope_scaling": ROPES[rope]}
    theirs, config = hf_oracle.make(raw), hf_config.parse(raw, "test")
    read = student(words, theirs, config)
    texts = [text for text in prompts(words, len(LENGTHS)) if not shared or len(text.split()) > shared]
    if shared:
        start = " " + " ".join(texts[0].split()[:shared])
        texts = [start + " " + " ".join(text.split()[shared:]) for text in texts]
    made = Engine(read.model, read.variables, words, read.mesh, rows=3, max_new_tokens=NEW)
    found = {done.index: done for done in made.complete(texts)}
    for index, text in enumerate(texts):
        ids = encode.prompt_ids(text, words)
        assert found[index].too_long == (len(ids) >= config.context)
        if found[index].too_long:
            continue
        expected = generated(theirs, ids)[: config.context - len(ids)]
        ended = expected[-1] == 1
        assert found[index].text == words.decode(expected[: len(expected) - ended], skip_special_tokens=True), len(ids)
        assert found[index].completion_tokens == len(expected)


@pytest.mark.slow
def test_scores_of_padded_texts_are_those_of_each_alone(words):
    raw = RAW | {"rope_scaling": ROPES["dynamic"]}
    theirs, config = hf_oracle.make(raw), hf_config.parse(raw, "test")
    texts = [text for text in prompts(words, len(LENGTHS)) if text.count(" ") > 20]
    pairs = [Pair("".join(f" {one}" for one in text.split()[:9]), text) for text in texts]
    found = {done.index: done.nll for done in score(student(words, theirs, config), pairs, rows=4)}
    for index, pair in enumerate(pairs):
        start = encode.prompt_ids(pair.prompt, words)
        ids = start + encode.prompt_ids(pair.completion, words, rendered=True)
        theirs.model.rotary_emb = LlamaRotaryEmbedding(copy.deepcopy(theirs.config))
        logits = hf_oracle.logits(theirs, np.array([ids]))[0].astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        where = np.arange(len(start), len(ids))
        assert found[index] == pytest.approx(-log_p[where - 1, np.array(ids)[where]].sum(), rel=1e-4)


@pytest.mark.slow
def test_packed_texts_are_stretched_each_by_its_own_length(words):
    raw = RAW | {"rope_scaling": ROPES["dynamic"]}
    config = hf_config.parse(raw, "test")
    params = names.load_model(hf_oracle.StateDict(hf_oracle.make(raw)), config)
    random, lengths = np.random.default_rng(0), (70, 20, 61)
    apart = [random.integers(3, 704, length) for length in lengths]
    packed = np.zeros((1, 160), np.int32)
    segments, positions = np.zeros_like(packed), np.zeros_like(packed)
    at = 0
    for number, one in enumerate(apart):
        where = slice(at, at := at + len(one))
        packed[0, where], segments[0, where], positions[0, where] = one, number + 1, np.arange(len(one))
    together = jax.jit(Llama(config).apply)({"params": params}, packed, positions, segments)[0]
    at = 0
    for one in apart:
        alone = jax.jit(Llama(config).apply)({"params": params}, one[None])[0]
        np.testing.assert_allclose(together[at : at + len(one)], alone, atol=1e-4)
        at += len(one)


# --- a beginning that all prompts share -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 100).map(lambda n: n * lengths.PREFIX),
    st.integers(1, 2000),
    st.sampled_from(["dense", "int8"]),
)
def test_any_beginning_goes_before_any_rest(start, rest, kind):
    """Shapes alone: the prefix's bucket may be larger than that of the group that goes on from it."""
    config = LlamaConfig(704, 32, 48, 2, 4, 2, 8)
    _, width = chunks(start)
    cache = lambda rows, slots: caches.empty(config, Compute(), rows, slots, kind)
    last = jax.ShapeDtypeStruct((1, 32), np.float32)
    prefix = decode.Prefill(jax.eval_shape(lambda: cache(1, bucket(width))), last)
    slots = bucket(start + chunks(rest)[1])
    made = jax.eval_shape(lambda reading: decode.share_prefix(reading, 4, slots), prefix)
    assert made.cache.length == slots >= start + rest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beginning", "rests"),
    [
        (160, (5, 40, 90)),
        *(pytest.param(*case, marks=pytest.mark.long) for case in [(160, (1, 30)), (96, (1,) * 3), (288, (3, 31, 60))]),
    ],
)
def test_answers_after_a_shared_prefix_are_those_without(words, beginning, rests, monkeypatch):
    """With chunks of 128, as chunks of 512 do with 544 tokens and last chunks of up to 192."""
    raw = RAW | {"max_position_embeddings": 1024}
    theirs, config = hf_oracle.make(raw), hf_config.parse(raw, "test")
    read = student(words, theirs, config)
    common = "".join(f" {n}" for n in np.random.default_rng(5).integers(0, 400, beginning + 3))
    texts = [common + "".join(f" {400 - n - 7 * k}" for k in range(rest)) for n, rest in enumerate(rests)]
    monkeypatch.setattr(lengths, "CHUNK", 128)

    def answers():
        made = Engine(read.model, read.variables, words, read.mesh, rows=4, max_new_tokens=NEW)
        return {done.index: done.text for done in made.complete(texts)}

    together = answers()
    monkeypatch.setattr(lengths, "PREFIX", 1 << 20)
    assert together == answers()
    assert len(together) == len(rests)
