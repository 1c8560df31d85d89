"""The memory that caches take: by formula, refused before it is taken, and never more than was required."""

import jax
import pytest

from lema_jax.errors import UserError
from lema_jax.generation import memory
from lema_jax.generation.engine import Engine
from lema_jax.model import cache as caches
from lema_jax.model.config import CACHES, Compute
from lema_jax.model.llama import Llama
from tests.generation.test_engine import CONFIG, PROMPTS, SEEDS, engine, words

__all__ = ["words"]  # a fixture


@pytest.mark.parametrize("kind", CACHES)
def test_the_bytes_of_a_cache_are_those_of_its_formula(kind):
    made = jax.eval_shape(lambda: caches.empty(CONFIG, Compute(), 3, 64, kind))
    taken = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made))
    assert memory.cache_bytes(Llama(CONFIG, Compute()), 3, 64, kind) == taken


def test_a_cache_beyond_the_memory_is_refused_before_compiling(words, monkeypatch):
    one = memory.cache_bytes(Llama(CONFIG, Compute()), 1, 64, "dense")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 9 * one)
    refused = engine(words, rows=4)
    with pytest.raises(UserError, match="--batch_size=2 fits"):
        list(refused.complete(PROMPTS[:4]))
    assert not refused.tally.programs
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1)
    with pytest.raises(UserError, match="not even the smallest batch fits"):
        list(engine(words, rows=4).complete(PROMPTS[:4]))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 4, 8])
def test_a_device_with_less_than_what_becomes_alive_is_refused(words, monkeypatch, rows):
    peak, before = [0], sum(array.nbytes for array in jax.live_arrays())
    made = engine(words, rows=rows, new=60)
    weights = sum(array.nbytes for array in jax.live_arrays()) - before

    def watched(self, program, *given, call=Engine._call, **static):
        found = call(self, program, *given, **static)
        jax.block_until_ready(found)
        peak.append(sum(array.nbytes for array in jax.live_arrays()) - before - weights)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_call", watched)
        patch.setattr(memory, "free_bytes", lambda device: 1 << 50)
        assert len(list(made.complete(PROMPTS, SEEDS))) == 13
    monkeypatch.setattr(memory, "free_bytes", lambda device: max(peak) - 1)
    with pytest.raises(UserError, match="answers in flight"):
        list(made.complete(PROMPTS, SEEDS))
