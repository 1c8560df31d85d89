"""A byte that changed in a checkpoint or a model folder is noticed, or changes nothing that is read."""

import errno
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from lema_jax import checkpoint, steps
from lema_jax.checkpoint import DamagedCheckpoint
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.model.config import Compute
from lema_jax.parallel import checksum
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training import checkpoints, loop
from lema_jax.training.setup import Setup
from tests import tiny
from tests.data.test_damaged_files import files, flip, flips
from tests.training.test_loop import LORA, assert_equal, base, config, data, losses, weights

__all__ = ["base", "data"]  # fixtures


@pytest.fixture(scope="module")
def run(tmp_path_factory, data, base) -> Path:
    """A run of adapters: 6 steps, checkpoints at 2, 4 and 6."""
    out = tmp_path_factory.mktemp("whole") / "run"
    loop.run(config(out, data, init=str(base), lora=LORA))
    return out


@pytest.fixture(scope="module")
def restored(run, data):
    """What a run reads of its step 6."""
    settings = config(run, data, lora=LORA)
    setup = Setup(settings, tiny.CONFIG, make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
    abstract = checkpoints.items(setup, setup.stored)

    def read(out: Path) -> tuple:
        opened = checkpoint.open_step(out, 6, checkpoint.read_metadata(out), abstract)
        return jax.device_get((opened.load(abstract), opened.record))

    return read


@pytest.mark.long
def test_any_flipped_bit_of_a_checkpoint_is_noticed_or_changes_nothing(run, restored, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    expected, noticed, of_arrays = restored(out), 0, 0
    for file, byte, bit in flips(out / "checkpoints" / "6", 60):
        kept = file.read_bytes()
        flip(file, byte, bit)
        found = damage = None
        try:
            found = restored(out)
        except DamagedCheckpoint as error:
            damage = str(error)
        if damage is None:
            assert_equal(found[0], expected[0])
            assert found[1] == expected[1], f"{file}, byte {byte}, bit {bit}"
        else:
            assert "checkpoints/6 is damaged" in damage
            assert "\n" not in damage
            noticed += 1
            of_arrays += "/d/" in str(file)
        file.write_bytes(kept)
    assert noticed > 40
    assert of_arrays > 15


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", ["cut", *(pytest.param(how, marks=pytest.mark.long) for how in ("emptied", "missing"))]
)
def test_a_file_that_is_cut_or_missing_is_noticed_or_changes_nothing(run, restored, tmp_path, damage):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    expected, noticed = restored(out), 0
    for file in files(out / "checkpoints" / "6"):
        kept = file.read_bytes()
        file.unlink() if damage == "missing" else file.write_bytes(kept[: len(kept) // 2] if damage == "cut" else b"")
        try:
            assert_equal(restored(out)[0], expected[0])
        except DamagedCheckpoint:
            noticed += 1
        file.write_bytes(kept)
    assert noticed >= 7
    for name in ("6/notes.txt", "6/weights/d/ffff", "6/optimizer/ocdbt.process_0/d/ffff"):
        (out / "checkpoints" / name).write_text("mine")
    assert_equal(restored(out)[0], expected[0])


@pytest.mark.slow
def test_a_flipped_bit_of_model_json_or_the_tokenizer_is_noticed(base, data, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    tops = [file for file in files(folder) if "checkpoints" not in file.parts]
    assert len(tops) == 3
    random = np.random.default_rng(1)
    for file in tops * 3:
        kept = file.read_bytes()
        flip(file, int(random.integers(len(kept))), int(random.integers(8)))
        with pytest.raises(UserError, match=f"{file.name} (is damaged|is not JSON|is not readable)") as error:
            weights(folder)
        assert "\n" not in str(error.value)
        file.write_bytes(kept)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer/tokenizer\.json is missing"):
        weights(folder)


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before_a_silently_damaged_one(run, data, base, tmp_path, capsys):
    """Values that decode as well as the ones written: what an unchecked read would go on with."""
    out = tmp_path / "run"
    shutil.copytree(run, out)
    metadata = checkpoint.read_metadata(out)
    path = out / "checkpoints" / "6" / "weights"
    shutil.rmtree(path)
    shutil.copytree(out / "checkpoints" / "4" / "weights", path)  # those of another step, whole in themselves
    loop.run(config(out, data, init=str(base), lora=LORA))
    said = capsys.readouterr()
    assert "checkpoints/6 is damaged (weights." in said.err
    assert "use the one before it, step 4" in said.err
    assert "going on from step 4" in said.out
    assert losses(out) == losses(run)
    assert_equal(weights(out), weights(run))
    assert checkpoint.read_metadata(out) == metadata


@pytest.mark.slow
def test_a_step_of_another_run_is_named_as_such(run, data, base, tmp_path):
    other = tmp_path / "other"
    of_other = config(other, data, init=str(base), lora=LORA, steps=2)
    of_other.data.seed = 1
    loop.run(of_other)
    shutil.rmtree(other / "checkpoints" / "2")
    for step in ("2", "6"):  # the same shapes, and each whole in itself
        shutil.copytree(run / "checkpoints" / "6", other / "checkpoints" / step)
        said = f"holds {checkpoint.identity(run, 6)}, but {other} is of {checkpoint.identity(other, int(step))}"
        with pytest.raises(UserError, match=said):
            loop.run(of_other)
        with pytest.raises(UserError, match=said):
            weights(other)
        assert checkpoint.steps(other) == [int(step)]
        shutil.rmtree(other / "checkpoints" / step)


@pytest.mark.slow
def test_only_damaged_checkpoints_stay_where_they_are(run, data, base, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    for file in (out / "checkpoints").rglob("_METADATA"):
        file.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match=r"none of the checkpoints \[2, 4, 6\] .*begin again in another out"):
            loop.run(config(out, data, init=str(base), lora=LORA))
        assert checkpoint.steps(out) == [2, 4, 6]


@pytest.mark.slow
def test_checkpoints_of_an_earlier_version_are_read_with_a_warning(base, tmp_path, capsys):
    folder = tmp_path / "old"
    shutil.copytree(base, folder)
    told = json.loads((folder / "model.json").read_text())
    for name in ("sha256", "tokenizer", "init", "data", "changed"):
        del told[name]
    (folder / "model.json").write_text(json.dumps(told))
    file = folder / "checkpoints" / "0" / "_CHECKPOINT_METADATA"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"custom_metadata": {}}))
    for _ in range(2):
        assert_equal(weights(folder), weights(base))
    said = capsys.readouterr().err
    assert said.count("of an earlier version") == 2  # the folder, and its checkpoints
    assert len(said.splitlines()) == 2


@pytest.mark.slow
def test_weights_read_a_few_at_a_time_are_the_same_ones_and_checked(base, tmp_path, monkeypatch):
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    half = Compute(param_dtype="bfloat16")
    together = jax.device_get(checkpoint.load_weights(base, mesh, half)[1])
    expected = jax.tree.map(lambda array: np.asarray(array.astype(jax.numpy.bfloat16)), weights(base)["params"])
    monkeypatch.setattr(steps, "_TOGETHER", 1)
    apart = jax.device_get(checkpoint.load_weights(base, mesh, half)[1])
    assert_equal(apart, together)
    for (path, found), want in zip(jax.tree_util.tree_leaves_with_path(apart["params"]), jax.tree.leaves(expected)):
        if found.dtype == want.dtype:
            np.testing.assert_array_equal(found, want, err_msg=str(path))
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    sums = checksum.of(weights(base))
    monkeypatch.setattr(checksum, "of", lambda tree: dict.fromkeys(sums, "another"))
    with pytest.raises(DamagedCheckpoint, match="another checksum"):
        checkpoint.load_weights(folder, mesh, half)


def test_memory_that_is_short_is_no_damage(base, monkeypatch):
    def short(*args):
        raise MemoryError

    monkeypatch.setattr(steps.ocp, "load_checkpointables", short)
    with pytest.raises(MemoryError):
        weights(base)


def test_the_tokenizer_of_a_run_is_its_data_set_s(run, data):
    assert tokenizer.fingerprint(tokenizer.load(run)) == tokenizer.fingerprint(tokenizer.load(data))
    assert json.loads((run / "config.json").read_text())["data"]["path"] == str(data)


HINDRANCES = {
    "full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"),
    "forbidden": PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/x"),
    "too many files": ValueError('RESOURCE_EXHAUSTED: Error opening "/x": Too many open files'),
    "a failing disk": OSError(errno.EIO, os.strerror(errno.EIO), "/x"),
    "memory": MemoryError(),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", HINDRANCES)
@pytest.mark.parametrize("where", ["metadata", "load_checkpointables"])
def test_what_hinders_the_reading_puts_no_checkpoint_aside(run, data, base, tmp_path, monkeypatch, what, where):
    out, error = tmp_path / "run", HINDRANCES[what]
    shutil.copytree(run, out)
    read = getattr(steps.ocp, where)

    def hindered(path, *args, **kwargs):
        if str(path).startswith(str(out)):
            raise ValueError("cannot be read") from error
        return read(path, *args, **kwargs)

    monkeypatch.setattr(steps.ocp, where, hindered)
    with pytest.raises(ValueError, match="cannot be read") as found:
        loop.run(config(out, data, init=str(base), lora=LORA))
    assert not isinstance(found.value, UserError)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["2", "4", "6"]
