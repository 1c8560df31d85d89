"""Model folders read to answer: the format of their kernels, on any mesh."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax import checkpoint
from lema_jax.checkpoint import Metadata
from lema_jax.errors import UserError
from lema_jax.generation import score, student
from lema_jax.model import int8, nf4
from lema_jax.model.config import LoraConfig
from lema_jax.model.int8 import Int8
from lema_jax.model.nf4 import Nf4
from lema_jax.records import Verdict
from tests import tiny

FORMS = {"int8": int8, "nf4": nf4}
PAIRS = [score.Pair("one two", " three"), score.Pair("four", " one two three")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A model whose kernels are full tiles of nf4, and adapters that were trained upon it in nf4."""
    root = tmp_path_factory.mktemp("folders")
    data = tiny.data_set(root / "data")
    variables = tiny.variables(tiny.TILED, LoraConfig(4, 8.0, 0.0))
    checkpoint.save_model(root / "base", Metadata(tiny.TILED, "of-base"), variables["params"], data / "tokenizer")
    metadata = Metadata(tiny.TILED, "of-adapters", LoraConfig(4, 8.0, 0.0, base="nf4"), "../base", "of-base@0")
    checkpoint.save_model(root / "adapters", metadata, variables["lora"], data / "tokenizer")
    return root / "base", root / "adapters"


def whole(tree):
    """On the host, quantised kernels with the values that they stand for."""
    is_quantised = lambda node: isinstance(node, Int8 | Nf4)

    def one(node):
        if not is_quantised(node):
            return np.asarray(node)
        return np.asarray((int8 if isinstance(node, Int8) else nf4).dequantise(node, jnp.float32))

    return jax.tree.map(one, jax.device_get(tree), is_leaf=is_quantised)


def scores(read: student.Student) -> list[float]:
    return [done.nll for done in sorted(score.score(read, PAIRS, rows=8), key=lambda done: done.index)]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["int8", pytest.param("nf4", marks=pytest.mark.long)])
def test_kernels_are_stored_in_the_format_asked_for_on_every_mesh(folders, weights):
    base, _ = folders
    dense = student.read(base, 0, "float32")
    read = student.read(base, 0, "float32", weights=weights)
    cut = student.read(base, 0, "float32", fsdp=2, tensor=2, weights=weights)
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (read.variables, cut.variables)))
    stored, held = (one.variables["params"]["layers_1"]["mlp"]["down"] for one in (dense, read))
    kernel = stored["kernel_OI"].T
    expected = FORMS[weights].quantise(kernel)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(held["kernel"]), jax.device_get(expected))
    np.testing.assert_array_equal(
        read.variables["params"]["head"]["kernel_OI"], dense.variables["params"]["head"]["kernel_OI"]
    )
    codes = cut.variables["params"]["layers_1"]["mlp"]["down"]["kernel"].codes
    assert codes.sharding.shard_shape(codes.shape)[0] * 2 == codes.shape[0]  # cut as the dense kernel is
    values = dataclasses.replace(read, variables=whole(read.variables))
    np.testing.assert_allclose(scores(read), scores(values), rtol=1e-5)
    np.testing.assert_allclose(scores(cut), scores(values), rtol=1e-5)
    assert scores(read) != pytest.approx(scores(dense), rel=1e-6)


@pytest.mark.long
def test_adapters_get_the_format_they_were_trained_upon_by_default(folders):
    base, adapters = folders
    trained_upon = student.read(adapters, 0, "float32")
    assert isinstance(trained_upon.variables["params"]["layers_0"]["attn"]["q"]["kernel"], Nf4)
    assert scores(trained_upon) == scores(student.read(adapters, 0, "float32", weights="nf4"))
    upon_dense = student.read(adapters, 0, "float32", weights="dense")
    plain = student.read(base, 0, "float32")
    jax.tree.map(np.testing.assert_array_equal, upon_dense.variables["params"], plain.variables["params"])
    assert len({tuple(scores(student.read(adapters, 0, "float32", weights=w))) for w in ("dense", "int8", "nf4")}) == 3


def test_a_kernel_that_nf4_cannot_hold_is_named(folders, tmp_path):
    base, _ = folders
    metadata = Metadata(tiny.CONFIG, "small")
    checkpoint.save_model(tmp_path / "small", metadata, tiny.variables()["params"], base / "tokenizer")
    with pytest.raises(UserError, match=r"layers\.attn\.\w+\.kernel.* cannot be quantised to nf4"):
        student.read(tmp_path / "small", 0, "float32", weights="nf4")


def test_the_state_is_a_line_now_and_then_where_no_terminal_reads_it(capsys, monkeypatch):
    passed = iter(range(1000))
    monkeypatch.setattr(student.time, "monotonic", lambda: float(next(passed)))
    progress = student._Progress(100, done=0, right=0)
    for _ in range(100):  # an answer a second
        progress.add(Verdict.RIGHT, 7)
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == "10/100 answered, 100.0% right, 7 tokens/s, 0:01:30 left"
    assert lines[-2:] == ["100/100 answered, 100.0% right, 7 tokens/s, 0:00:00 left", ""]
    assert len(lines) == 11
