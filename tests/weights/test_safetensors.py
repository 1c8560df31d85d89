"""Folders of safetensors: single, sharded, damaged; and what is written is what was read."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from memory import Memory, tensors
from safetensors.numpy import load_file, save_file

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.weights import names, safetensors

SMALL = LlamaConfig(16, 8, 24, 3, 4, 2, 4)
DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]


def sharded(folder, weights, parts=3):
    """A folder with an index, as transformers writes it."""
    listed = list(weights)
    weight_map = {name: f"model-{i % parts}.safetensors" for i, name in enumerate(listed)}
    for file in set(weight_map.values()):
        save_file({name: weights[name] for name in listed if weight_map[name] == file}, folder / file)
    (folder / safetensors.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shard_bytes", [1 << 30, 1000, 1])
def test_in_and_out_again_is_bit_equal(tmp_path, dtype, shard_bytes):
    weights = tensors(SMALL, dtype)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save_file(weights, tmp_path / "a" / safetensors.SINGLE)
    params = names.load_model(safetensors.open_folder(tmp_path / "a"), SMALL)
    safetensors.save(tmp_path / "b", names.Tree(params, names.table(SMALL), "memory"), None, shard_bytes)
    files = sorted((tmp_path / "b").glob("*.safetensors"))
    (tmp_path / "plain").touch()
    assert {file.stat().st_mode for file in files} == {(tmp_path / "plain").stat().st_mode}
    assert len(files) == {1 << 30: 1, 1: len(weights)}.get(shard_bytes, len(files))
    assert len(files) == 1 or all(file.stat().st_size < 1000 + 2000 or shard_bytes == 1 for file in files)
    again = safetensors.open_folder(tmp_path / "b")
    assert set(again.names()) == set(weights)
    for name, array in weights.items():
        found = names.read_whole(again, name)
        assert found.dtype == array.dtype
        assert found.tobytes() == array.tobytes(), name


def test_sharded_and_single_folders_read_the_same(tmp_path):
    weights = tensors(SMALL)
    sharded(tmp_path, weights)
    source = safetensors.open_folder(tmp_path)
    for name, array in weights.items():
        np.testing.assert_array_equal(names.read_whole(source, name), array)
        assert source.shape(name) == array.shape
        assert source.dtype(name) == np.float32
    np.testing.assert_array_equal(
        source.read("lm_head.weight", (slice(3, 9), slice(2, 5))), weights["lm_head.weight"][3:9, 2:5]
    )


def test_another_type_on_the_way_out(tmp_path):
    tree = names.Tree(names.load_model(Memory(tensors(SMALL)), SMALL), names.table(SMALL), "memory")
    safetensors.save(tmp_path, tree, np.dtype(ml_dtypes.bfloat16), 1 << 30)
    stored = load_file(tmp_path / safetensors.SINGLE)
    for name, array in tensors(SMALL).items():
        np.testing.assert_array_equal(stored[name], array.astype(ml_dtypes.bfloat16))


def test_numbers_that_float16_cannot_hold_are_refused(tmp_path):
    weights = tensors(SMALL)
    weights["model.norm.weight"][2] = 1e6
    tree = names.Tree(names.load_model(Memory(weights), SMALL), names.table(SMALL), "memory")
    with pytest.raises(UserError, match=r"model\.norm\.weight has values that overflow float16"):
        safetensors.save(tmp_path, tree, np.dtype(np.float16), 1 << 30)


def test_what_is_no_folder_of_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="neither"):
        safetensors.open_folder(tmp_path)
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"from_pretrained\(folder\)\.save_pretrained"):
        safetensors.open_folder(tmp_path)


def test_every_damaged_file_is_named(tmp_path):
    sharded(tmp_path, tensors(SMALL))
    whole = (tmp_path / "model-0.safetensors").read_bytes()
    (tmp_path / "model-0.safetensors").write_bytes(whole[:-8])
    (tmp_path / "model-1.safetensors").write_bytes(struct.pack("<Q", 10**9) + whole[8:])
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError) as error:
        safetensors.open_folder(tmp_path)
    for file, reason in [("model-0", "damaged"), ("model-1", "damaged"), ("model-2", "missing")]:
        assert any(file in line and reason in line for line in str(error.value).splitlines())


def test_an_index_that_disagrees_with_its_files(tmp_path):
    weights = tensors(SMALL)
    weight_map = sharded(tmp_path, weights)
    moved, absent = "model.norm.weight", "model.layers.2.mlp.up_proj.weight"
    weight_map[moved] = "model-0.safetensors" if weight_map[moved] != "model-0.safetensors" else "model-1.safetensors"
    weight_map["model.extra.weight"] = "model-0.safetensors"
    del weight_map[absent]
    (tmp_path / safetensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError) as error:
        safetensors.open_folder(tmp_path)
    for name in (moved, absent, "model.extra.weight"):
        assert name in str(error.value)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"weight_map": 3}', "{}", '{"weight_map": {"a": "../model.safetensors"}}']
)
def test_a_broken_index(tmp_path, text):
    (tmp_path / safetensors.INDEX).write_text(text)
    with pytest.raises(UserError, match="index"):
        safetensors.open_folder(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    for file in ("a", "b"):
        save_file({"model.norm.weight": np.ones(3, np.float32)}, tmp_path / f"{file}.safetensors")
    with pytest.raises(UserError, match=r"model\.norm\.weight is in a\.safetensors and in b\.safetensors"):
        safetensors.Safetensors([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], "folder")


def test_quantised_weights_are_refused(tmp_path):
    save_file({"model.norm.weight": np.ones(3, np.int8)}, tmp_path / safetensors.SINGLE)
    with pytest.raises(UserError, match="stored as I8"):
        safetensors.open_folder(tmp_path)


def test_of_one_file_and_an_index_the_file_is_read_as_by_transformers(tmp_path):
    new, stale = tensors(SMALL, np.float32), {name: 0 * array for name, array in tensors(SMALL, np.float32).items()}
    save_file(new, tmp_path / safetensors.SINGLE)
    save_file(stale, tmp_path / "old.safetensors")
    (tmp_path / safetensors.INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(new, "old.safetensors")}))
    found = safetensors.open_folder(tmp_path)
    assert all(names.read_whole(found, name).tobytes() == array.tobytes() for name, array in new.items())
