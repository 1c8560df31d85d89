"""Scores of completions against the definition, sequence by sequence."""

import functools

import jax
import numpy as np
import pytest

from lema_jax.checkpoint import abstract_variables
from lema_jax.data import tokenizer
from lema_jax.data.encode import prompt_ids
from lema_jax.generation.score import Pair, score
from lema_jax.generation.student import Student
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from tests import tiny

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
PAIRS = [("one two", " three"), ("seven", " one two three four five"), ("one " * 12, "two " * 30), ("two", " two")]


@pytest.fixture(scope="module")
def words():
    return tokenizer.train_bpe([" ".join(WORDS)], tiny.CONFIG.vocab_size)


@functools.cache
def variables():
    return tiny.variables()


def student(words, sizes=(1, 1, 1)):
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    model = Llama(tiny.CONFIG, Compute())
    with sharding.use(mesh):
        placed = jax.device_put(variables(), sharding.of(abstract_variables(model, mesh)))
    return Student(model, placed, words, mesh, ())


def by_definition(words, prompt: str, completion: str, rendered: bool = False) -> tuple[float, int]:
    """-Σ log softmax(logits before the token)[token] over the completion, alone in its batch."""
    start, end = prompt_ids(prompt, words, rendered=rendered), words(completion, add_special_tokens=False).input_ids
    ids = np.zeros((1, 96), np.int32)  # one length for all, so that one program does
    ids[0, : len(start) + len(end)] = start + end
    logits = np.asarray(tiny.apply(Llama(tiny.CONFIG), variables(), ids)[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    where = np.arange(len(start), len(start) + len(end))
    return -log_p[where - 1, ids[0, where]].sum(), len(end)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "sizes"), [(3, (1, 1, 1)), (1, (2, 2, 2))], ids=["batched", "on a mesh"])
def test_scores_are_those_of_the_definition(words, rows, sizes):
    found = {done.index: done for done in score(student(words, sizes), [Pair(*pair) for pair in PAIRS], rows=rows)}
    assert sorted(found) == list(range(len(PAIRS)))
    for index, pair in enumerate(PAIRS):
        nll, tokens = by_definition(words, *pair)
        assert found[index].tokens == tokens
        assert found[index].nll == pytest.approx(nll, rel=1e-4)


def test_what_cannot_be_read_has_no_score(words):
    pairs = [("one", ""), ("one", "two " * 400), ("one", " two")]
    found = {done.index: done.nll for done in score(student(words), [Pair(*pair) for pair in pairs], rows=2)}
    assert (found[0], found[1]) == (None, None)
    assert found[2] == pytest.approx(by_definition(words, *pairs[2])[0], rel=1e-4)


def test_a_rendered_prompt_has_the_special_tokens_that_it_writes_alone(words):
    pairs = [Pair("<s>one", " two", rendered=True), Pair("one", " two", rendered=True), Pair("one", " two")]
    found = {done.index: done.nll for done in score(student(words), pairs, rows=2)}
    assert found[0] == pytest.approx(by_definition(words, "<s>one", " two", rendered=True)[0], rel=1e-4)
    assert found[0] == pytest.approx(found[2], rel=1e-4)
    assert abs(found[0] - found[1]) > 1e-3
