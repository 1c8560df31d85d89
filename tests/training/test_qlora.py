"""QLoRA end to end: nf4 kernels read from a dense folder, adapters trained upon them."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax import checkpoint, steps
from lema_jax.checkpoint import Metadata
from lema_jax.errors import UserError
from lema_jax.generation import student
from lema_jax.model import nf4
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.model.llama import Llama
from lema_jax.model.nf4 import Nf4
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training import loop
from lema_jax.training.config import DataConfig, OptimizerConfig, TrainConfig
from tests import tiny

TEXTS = ["one two", "three four one", "two"]
QLORA = LoraConfig(rank=4, alpha=8.0, dropout=0.1, rslora=True, base="nf4")
ALONE = MeshConfig(1, 1, 1)
CUT = MeshConfig(2, 2, 2)
SCANNED = Compute()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("data") / "set")


def folder(path: Path, data: Path, config: LlamaConfig = tiny.TILED) -> Path:
    metadata = Metadata(config, lineage=checkpoint.lineage(tiny="tiled"))
    checkpoint.save_model(path, metadata, tiny.variables(config)["params"], data / "tokenizer")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory, data) -> Path:
    return folder(tmp_path_factory.mktemp("model") / "base", data)


def mesh_of(sizes: MeshConfig):
    return make_mesh(sizes, jax.devices()[: 8 if sizes == CUT else 1])


def load(path: Path, sizes: MeshConfig, compute: Compute = SCANNED, lora: LoraConfig | None = QLORA):
    return checkpoint.load_weights(path, mesh_of(sizes), compute, lora=lora)[1]


def dense(params):
    """The same with nf4 kernels dequantised."""
    is_nf4 = lambda node: isinstance(node, Nf4)
    return jax.tree.map(lambda x: nf4.dequantise(x, jnp.float32) if is_nf4(x) else x, params, is_leaf=is_nf4)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def train(out: Path, data: Path, base: Path, sizes: MeshConfig = CUT, **fields) -> list[float]:
    settings = {"steps": 4, "lora": QLORA, "optimizer": OptimizerConfig(learning_rate=1e-2)} | fields
    config = TrainConfig(
        out=str(out),
        init=str(base),
        data=DataConfig(str(data), batch_size=8, seq_len=32),
        mesh=sizes,
        log_every=1,
        checkpoint_every=2,
        **settings,
    )
    loop.run(config)
    return losses(out)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_dense_folder_is_read_as_nf4_the_same_on_every_mesh(base):
    alone, cut = load(base, ALONE), load(base, CUT)
    assert_equal(alone, cut)
    stored = load(base, ALONE, lora=None)
    kernel = alone["params"]["layers"]["mlp"]["down"]["kernel"]
    assert_equal(kernel, nf4.quantise(stored["params"]["layers"]["mlp"]["down"]["kernel"]))
    for name in ("embed", "norm", "head"):
        assert_equal(alone["params"][name], stored["params"][name])
    codes = cut["params"]["layers"]["attn"]["q"]["kernel"].codes
    assert codes.sharding.shard_shape(codes.shape) == (2, 1, 32, 64)


@pytest.mark.slow
def test_dense_kernels_are_read_in_parts_of_bounded_size(base, monkeypatch):
    sizes, plain = [], checkpoint.ocp.load_checkpointables

    def noted(path, abstract):
        kernels = [leaf for leaf in jax.tree.leaves(abstract) if leaf is not ... and len(leaf.shape) == 3]
        sizes.append(len(kernels))
        return plain(path, abstract)

    monkeypatch.setattr(checkpoint.ocp, "load_checkpointables", noted)
    monkeypatch.setattr(steps, "_TOGETHER", 1)  # byte: then one kernel alone
    load(base, CUT)
    assert max(sizes) == 1
    assert sum(sizes) == 7  # the kernels of all layers, one for each linear map


@pytest.mark.long
def test_the_model_is_that_of_its_dequantised_kernels(base):
    dense_lora = dataclasses.replace(QLORA, base="dense")
    frozen = load(base, ALONE)["params"]
    adapters = tiny.variables(tiny.TILED, dense_lora)["lora"]
    tokens = tiny.tokens(2, 9)

    def loss(adapters, params, lora):
        logits = tiny.apply(Llama(tiny.TILED, SCANNED, lora), {"params": params, "lora": adapters}, tokens)
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1)), logits

    gradients = jax.jit(jax.grad(loss, has_aux=True), static_argnums=2)
    found, expected = gradients(adapters, frozen, QLORA), gradients(adapters, dense(frozen), dense_lora)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.long
def test_logits_do_not_depend_on_the_mesh(base):
    model, tokens = Llama(tiny.TILED, lora=QLORA), tiny.tokens(8, 6)
    adapters = {"lora": tiny.variables(tiny.TILED, QLORA)["lora"]}
    alone = tiny.apply(model, load(base, ALONE) | adapters, tokens)
    mesh = mesh_of(CUT)
    with sharding.use(mesh):
        placed = jax.device_put(adapters, sharding.of({"lora": checkpoint.abstract_variables(model, mesh)["lora"]}))
        found = jax.jit(model.apply)(load(base, CUT) | placed, tokens)
    np.testing.assert_allclose(found, alone, atol=1e-4)


@pytest.mark.long
def test_adapters_train_alike_on_meshes_and_the_base_stays(tmp_path, data, base):
    before = load(base, ALONE)
    lora = dataclasses.replace(QLORA, dropout=0.0)  # what is dropped depends on the layout
    cut = train(tmp_path / "cut", data, base, lora=lora)
    in_line = Compute(scan_layers=False, remat="full")
    alone = train(tmp_path / "rows", data, base, MeshConfig(8, 1, 1), compute=in_line, lora=lora)
    np.testing.assert_allclose(cut, alone, rtol=1e-4)
    assert cut[-1] < cut[0]
    assert checkpoint.read_metadata(tmp_path / "cut").lora == lora
    after = load(tmp_path / "cut", ALONE)
    assert_equal(after["params"], before["params"])
    assert all(np.any(leaf) for leaf in jax.tree.leaves(jax.device_get(after["lora"])))


@pytest.mark.long
def test_it_answers_as_upon_its_dequantised_kernels(tmp_path, data, base):
    train(tmp_path / "run", data, base)
    held = student.read(tmp_path / "run", 4, "float32")
    lora = dataclasses.replace(QLORA, base="dense")
    plain = dataclasses.replace(
        held,
        model=held.model.clone(lora=lora),
        variables=held.variables | {"params": dense(held.variables["params"])},
    )
    ask = lambda one: sorted((done.index, done.text) for done in student.engine(one, max_new_tokens=8).complete(TEXTS))
    assert ask(held) == ask(plain)


@pytest.mark.long
def test_a_resumed_run_ends_bit_equal(tmp_path, data, base):
    straight = train(tmp_path / "straight", data, base)
    train(tmp_path / "stopped", data, base, steps=2)
    config = json.loads((tmp_path / "stopped" / "config.json").read_text())
    (tmp_path / "stopped" / "config.json").write_text(json.dumps(config | {"steps": 4}))
    assert train(tmp_path / "stopped", data, base) == straight
    assert_equal(load(tmp_path / "stopped", ALONE), load(tmp_path / "straight", ALONE))


@pytest.mark.slow
def test_kernels_that_are_no_whole_tiles_are_named(tmp_path, data):
    odd = folder(tmp_path / "odd", data, dataclasses.replace(tiny.TILED, intermediate_size=96))
    with pytest.raises(
        UserError, match=r"mlp\.down\.kernel \[96, 128\] cannot be quantised to nf4.*64 × 64; store it dense"
    ):
        load(odd, ALONE)
    cut = folder(tmp_path / "cut", data, dataclasses.replace(tiny.TILED, intermediate_size=192))
    with pytest.raises(UserError, match=r"mlp\.down\.kernel\.codes: mlp=3 does not divide by mesh axis tensor=2"):
        load(cut, CUT)


def test_an_unknown_base_is_refused():
    assert LoraConfig(base="int4").problems() == ["base='int4' must be one of dense, nf4"]
