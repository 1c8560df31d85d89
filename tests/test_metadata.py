"""A folder that is no model folder, or has nonsensical metadata, is a one-line error for every reader."""

import json
import shutil

import jax
import pytest

from lema_jax import checkpoint, metadata
from lema_jax.errors import UserError
from lema_jax.model.config import Compute
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("base")
    return tiny.model_folder(root / "base", tiny.data_set(root / "data"))


NO_METADATA = {
    "not UTF-8": b"\xff\xfe\x00{",
    "a byte that is not UTF-8": b'{"lineage": "\xe9"}',
    "not JSON": b"hello",
    "cut": b'{"config": {"vocab_size": 7',
    "empty": b"",
    "a list": b"[1]",
    "a text": b'"x"',
    "null": b"null",
    "a number": b"3",
    "nothing in it": b"{}",
    "nested": b"[" * 100_000,
    "half a surrogate": b'{"lineage": "\\ud800"}',
}
CHANGES = {
    "config": [[], None, 7],
    "config.num_layers": ["two", -1, 0, 1.5, 10**12, None],
    "config.num_heads": [0, 3],
    "config.hidden_size": [10**12],
    "config.rope_theta": [0, "NaN", -1.0, float("nan"), float("inf")],
    "lineage": [5, None],
    "lora": [[], {"rank": -1}, {"rank": 4}],
    "eos_ids": [[-5], ["x"], 3],
    "changed": [[["a", "b"]], [[1]], 4],
    "tokenizer": [{"tokenizer.json": 5}, {"../other": "0"}, {"/etc/passwd": "0"}, []],
}


def readers(folder):
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    yield lambda: metadata.read_metadata(folder)
    yield lambda: checkpoint.identity(folder)
    yield lambda: checkpoint.trials(folder)
    yield lambda: checkpoint.stored_weights(folder)
    yield lambda: checkpoint.load_weights(folder, mesh, Compute())


def refused(folder, words):
    for read in readers(folder):
        with pytest.raises(UserError) as found:
            read()
        said = str(found.value)
        assert str(folder) in said
        assert words in said
        assert "\n" not in said
        assert len(said) < 600


@pytest.mark.parametrize("content", NO_METADATA.values(), ids=NO_METADATA)
def test_a_file_that_is_no_metadata(base, tmp_path, content):
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    (folder / "model.json").write_bytes(content)
    refused(folder, "model.json is")


@pytest.mark.parametrize("field", CHANGES)
def test_a_value_that_no_model_has(base, tmp_path, field):
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    for value in CHANGES[field]:
        told = json.loads((base / "model.json").read_text())
        del told["sha256"]  # as who changes it by hand is told to
        *outer, last = field.split(".")
        (told[outer[0]] if outer else told)[last] = value
        (folder / "model.json").write_text(json.dumps(told))
        refused(folder, "is not readable: ")


def test_what_is_no_model_folder_at_all(base, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    for name in ("file", "empty", "hf", "nowhere", "file/in/it"):
        refused(tmp_path / name, "is no model folder: it has no model.json")
    refused(base.parent / "data", "is no model folder: it has no model.json")
