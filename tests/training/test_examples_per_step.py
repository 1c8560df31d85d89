"""Runs whose steps have a number of examples: the loss of one example a row, refused before they claim, resumable."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from lema_jax.data import batches, dataset
from lema_jax.errors import UserError
from lema_jax.model.config import LoraConfig
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training import dry_run, loop, start
from lema_jax.training.config import DataConfig, TrainConfig, as_dict, described, shaping
from tests.training.test_loop import assert_equal, base, config, data, losses, weights

__all__ = ["base", "data"]  # fixtures

EXAMPLES = 24


def run_of(out: Path, data: Path, base: Path, **fields) -> TrainConfig:
    settings = {"batch_size": 8, "seq_len": 64, "examples_per_step": EXAMPLES, "order": "stored"} | fields
    run = config(out, data, init=str(base), steps=4, lora=LoraConfig(4, 8.0, 0.0))
    run.data = DataConfig(str(data), **settings)
    return run


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data, base) -> Path:
    out = tmp_path_factory.mktemp("straight") / "run"
    loop.run(run_of(out, data, base))
    return out


@pytest.mark.slow
def test_packed_steps_are_those_of_one_example_a_row(tmp_path, data, base, straight):
    loop.run(run_of(tmp_path / "run", data, base, packing=False, examples_per_step=0, batch_size=EXAMPLES))
    packed, separate = (
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (straight, tmp_path / "run")
    )
    for one, other in zip(packed, separate, strict=True):
        assert all(one[name] == other[name] for name in ("tokens", "loss_tokens", "learning_rate"))
        np.testing.assert_allclose([one["loss"], one["grad_norm"]], [other["loss"], other["grad_norm"]], rtol=1e-4)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4)
    jax.tree.map(close, weights(straight), weights(tmp_path / "run"))


@pytest.mark.slow
def test_on_several_devices_micro_batches_of_empty_rows_are_skipped(tmp_path, data, base, straight):
    run = run_of(tmp_path / "run", data, base, batch_size=32)
    run.accumulation, devices = 0, jax.device_count()
    loop.run(run)
    plans = itertools.islice(batches.batches(run.data), run.steps)
    rows = [int((plan["segment_ids"] > 0).any(axis=1).sum()) for plan in plans]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["computed"] for line in lines] == [-(-count // devices) * devices * 64 for count in rows]
    assert all(line["computed"] < 32 * 64 for line in lines)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(straight), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [pytest.param(MeshConfig(-1, 1), marks=pytest.mark.long), MeshConfig(2, 2, 2)])
def test_a_resumed_run_ends_equal_on_any_mesh(tmp_path, data, base, straight, mesh):
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    shutil.rmtree(out / "checkpoints" / "4")
    run = run_of(out, data, base)
    run.mesh = mesh
    loop.run(run)
    if mesh.tensor == 1:
        assert losses(out) == losses(straight)
        assert_equal(weights(out), weights(straight))
    np.testing.assert_allclose(losses(out), losses(straight), rtol=1e-4)


@pytest.mark.slow
def test_rows_too_few_for_a_step_are_refused_with_the_fewest_that_do(tmp_path, data, base):
    out = tmp_path / "run"
    run = run_of(out, data, base, seq_len=32, batch_size=8)
    needed = batches.fit(run.data, run.steps).rows
    assert needed > 8
    for begin in (loop.run, dry_run.show):
        with pytest.raises(UserError) as error:
            begin(run)
        assert "\n" not in str(error.value)
        assert f"needs up to {needed} rows of data.seq_len=32 (measured over all 4 steps)" in str(error.value)
        smallest = -(-needed // 8) * 8  # the mesh has eight devices
        assert str(error.value).endswith(f"more than data.batch_size=8; the smallest value that works is {smallest}")
        assert not out.exists()
    run.data.batch_size = smallest
    dry_run.show(run)


@pytest.mark.slow
def test_a_run_says_how_full_its_steps_are(tmp_path, data, base, capsys, monkeypatch):
    monkeypatch.setattr(batches, "_FITTED", 2 * EXAMPLES)
    run = run_of(tmp_path / "run", data, base)
    dry_run.show(run)
    rows = batches.fit(run.data, 2).rows
    said = capsys.readouterr().out
    assert f"examples_per_step={EXAMPLES} needs up to {rows} rows" in said
    assert "measured over the first 2 of 4 steps) of 8" in said
    assert "4 steps of 512 tokens; the first: " in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_packing_or_order_is_another_run(tmp_path, data, base, straight):
    out = tmp_path / "run"
    shutil.copytree(straight, out)
    free = run_of(out, data, base, examples_per_step=0, order="shuffled")
    with pytest.raises(
        UserError, match=r"another configuration:\n  data.examples_per_step: 24 before, 0 now\n  data.order"
    ):
        loop.run(free)
    free.steps = 5
    with pytest.raises(UserError, match=r"checkpoint 4 of .* was made with another packing.* data.order as they were"):
        loop.run(free, allow_config_change=True)
    fewer = run_of(out, data, base, examples_per_step=10)
    with pytest.raises(UserError, match=r"another configuration:\n  data.examples_per_step: 24 before, 10 now\nchoose"):
        loop.run(fewer)
    fewer.steps = 5
    loop.run(fewer, allow_config_change=True)
    lengths = dataset.lengths(data)[:, 0]
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["tokens"]) == (5, lengths[np.arange(4 * 24, 4 * 24 + 10) % len(lengths)].sum())


@pytest.mark.slow
def test_runs_from_before_these_fields_resume(tmp_path, data, base):
    run = config(tmp_path / "run", data, init=str(base), steps=1)
    names = [name for name in shaping(as_dict(run)) if name.startswith("data.")]
    assert sorted(names) == ["data.batch_size", "data.packing", "data.seed", "data.seq_len"]
    loop.run(run)
    before = json.loads((tmp_path / "run" / "config.json").read_text())
    for name in ("examples_per_step", "order"):
        del before["data"][name]
    (tmp_path / "run" / "config.json").write_text(json.dumps(before))
    loop.run(run)
    assert described(before) == described(as_dict(run))
    (tmp_path / "run" / "config.json").write_text(json.dumps(before))
    run.data = dataclasses.replace(run.data, examples_per_step=2)
    assert shaping(as_dict(run))["data.examples_per_step"] == 2
    with pytest.raises(UserError, match=r"another configuration:\n  data.examples_per_step: 0 before, 2 now\nchoose"):
        loop.run(run)


def test_few_batch_sizes_serve_all_numbers_of_rows():
    for divisor in (1, 6):
        taken = [start.rounded(rows, divisor) for rows in range(1, 1025)]
        assert all(size >= rows and size % divisor == 0 for rows, size in enumerate(taken, 1))
        assert all(size < 1.25 * rows + divisor for rows, size in enumerate(taken, 1))
        assert len(set(taken)) <= 4 * 10


@pytest.mark.slow
def test_without_a_batch_size_a_run_takes_the_fewest_rows_that_hold_it(tmp_path, data, base, straight):
    automatic = run_of(tmp_path / "run", data, base, batch_size=0)
    found = start.resolved(automatic).data.batch_size
    needed = batches.fit(automatic.data, 4).rows
    assert needed <= found <= 1.25 * needed
    loop.run(automatic)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(straight), rtol=1e-4)
    loop.run(dataclasses.replace(automatic, steps=4))  # found made
    automatic.data.examples_per_step, automatic.data.order = 0, "shuffled"
    assert "batch_size=0 is as few rows as hold examples_per_step" in "; ".join(automatic.problems())
