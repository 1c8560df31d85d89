"""Greedy accuracy of weights in training is what `evaluate` would find, in every layout that a run may have."""

import pytest

from lema_jax import checkpoint
from lema_jax.data import tokenizer
from lema_jax.generation.judge import judge
from lema_jax.model.config import Compute
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.tasks import arithmetic
from tests import tiny


@pytest.mark.slow
@pytest.mark.parametrize("scan", [True, False])
def test_the_share_of_right_answers(tmp_path, scan, monkeypatch):
    problems = arithmetic.load("dev")[:5]
    words = tokenizer.train_bpe([arithmetic.prompt(problem) for problem in problems], tiny.CONFIG.vocab_size)
    tokenizer.save(words, tmp_path / "data" / "tokenizer")
    folder = tiny.model_folder(tmp_path / "model", tmp_path / "data")
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
        accuracy = judge(problems, str(tmp_path / "data"), compute, 8)(metadata, mesh)(variables)
    assert accuracy == 2 / 5
    assert {name for name, _ in seen} == {problem.id for problem in problems}
