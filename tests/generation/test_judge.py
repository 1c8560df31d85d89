"""Greedy accuracy of weights in training is what `evaluate` would find, in every layout that a run may have."""

import jax
import numpy as np
import pytest

from lema_jax import checkpoint
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.generation import memory
from lema_jax.generation.judge import judge
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.tasks import arithmetic
from tests import tiny


def made(tmp_path):
    """Questions, the folders of a data set and of a model that read them."""
    problems = arithmetic.load("dev")[:5]
    words = tokenizer.train_bpe([arithmetic.prompt(problem) for problem in problems], tiny.CONFIG.vocab_size)
    tokenizer.save(words, tmp_path / "data" / "tokenizer")
    return problems, tmp_path / "data", tiny.model_folder(tmp_path / "model", tmp_path / "data")


@pytest.mark.slow
@pytest.mark.parametrize("scan", [True, False])
def test_the_share_of_right_answers(tmp_path, scan, monkeypatch):
    problems, data, folder = made(tmp_path)
    compute = Compute(scan_layers=scan, remat="full")
    mesh = make_mesh(MeshConfig(2, 2, 2))
    metadata, variables = checkpoint.load_weights(folder, mesh, compute)
    seen = []

    def grade(problem, text, truncated):
        seen.append((problem.id, text))
        return real(problem, f"The answer is {problem.gold}." if len(seen) <= 2 else "No.", truncated=False)

    from lema_jax import tasks

    real = tasks.grade
    monkeypatch.setattr(tasks, "grade", grade)
    with sharding.use(mesh):  # as inside a run
        accuracy = judge(problems, str(data), compute, 8)(metadata, mesh)(variables)
    assert accuracy == 2 / 5
    assert {name for name, _ in seen} == {problem.id for problem in problems}


@pytest.mark.slow
def test_fewer_rows_are_taken_where_the_memory_is_short(tmp_path, monkeypatch):
    problems, data, folder = made(tmp_path)
    compute, mesh = Compute(), make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    metadata, variables = checkpoint.load_weights(folder, mesh, compute)
    accuracy = judge(problems, str(data), compute, 8)(metadata, mesh)
    found = accuracy(variables)
    asked, require = [], memory.require

    def noted(model, mesh, rows, slots, kind, *, of_batch):
        asked.append(rows)
        monkeypatch.setattr(memory, "free_bytes", lambda device: 9 * memory.cache_bytes(model, 1, slots, kind))
        require(model, mesh, rows, slots, kind, of_batch=of_batch)

    monkeypatch.setattr(memory, "require", noted)
    assert accuracy(variables) == found
    assert asked == [5, 2]
    monkeypatch.setattr(memory, "require", require)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1)
    with pytest.raises(UserError, match=r"dev: 5 answers in flight .* smallest batch fits; lower dev\.max_new"):
        accuracy(variables)


def test_all_processes_find_the_same_to_fit(monkeypatch):
    model, mesh = Llama(tiny.CONFIG), make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100 << 20)
    memory.require(model, mesh, 8, 2048, "dense", of_batch=1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(memory.multihost_utils, "process_allgather", lambda mine: np.array([mine, 6]))
    with pytest.raises(memory.CacheTooLarge) as error:
        memory.require(model, mesh, 8, 2048, "dense", of_batch=1)
    assert 0 < error.value.fits < 8
