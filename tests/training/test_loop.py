import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from lema_jax import checkpoint
from lema_jax.data import batches, tokenizer
from lema_jax.errors import UserError
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig, RopeScaling
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training import checkpoints, dry_run, loop
from lema_jax.training.config import DataConfig, OptimizerConfig, TrainConfig, as_dict, too_long, validate
from tests import tiny

LORA = LoraConfig(4, 8.0, 0.1)
BEGINNINGS = pytest.mark.parametrize("begin", [loop.run, dry_run.show])  # a dry run refuses what the run does


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def base(tmp_path_factory, data) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("model") / "base", data)


def config(out: Path, data: Path, **fields) -> TrainConfig:
    settings = {
        "steps": 6,
        "checkpoint_every": 2,
        "log_every": 1,
        "keep": 0,
        "mesh": MeshConfig(data=-1, fsdp=1),
        "optimizer": OptimizerConfig(learning_rate=1e-2),
    }
    return TrainConfig(out=str(out), data=DataConfig(str(data), batch_size=8, seq_len=32), **settings | fields)


def weights(folder: Path, step: int | None = None):
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    return jax.device_get(checkpoint.load_weights(folder, mesh, Compute(), step)[1])


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


KINDS = {
    "from random": {"model": tiny.CONFIG},
    "adapters": {"lora": LORA},
    "adapters, in line": {"lora": LORA, "compute": Compute(scan_layers=False)},
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "adapters" else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
def test_a_resumed_run_ends_bit_equal(kind, tmp_path, data, base):
    fields = KINDS[kind] if "model" in KINDS[kind] else KINDS[kind] | {"init": str(base)}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    loop.run(config(straight, data, **fields))
    # As a kill between steps 4 and 6 leaves it: checkpoints 2 and 4, metrics up to 5, half of a checkpoint.
    shutil.copytree(straight, stopped)
    shutil.rmtree(stopped / "checkpoints" / "6")
    (stopped / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    lines = (stopped / "metrics.jsonl").read_text().splitlines(keepends=True)
    (stopped / "metrics.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    loop.run(config(stopped, data, **fields))
    assert_equal(weights(stopped), weights(straight))
    assert losses(stopped) == losses(straight)
    assert len(losses(straight)) == 6


@pytest.mark.slow
def test_losses_fall_and_the_base_is_untouched(tmp_path, data, base):
    before = weights(base)
    loop.run(config(tmp_path / "run", data, init=str(base), lora=LORA, steps=12))
    run = losses(tmp_path / "run")
    assert run[-1] < run[0]
    assert_equal(weights(base), before)
    after = weights(tmp_path / "run")
    assert_equal(after["params"], before["params"])
    assert any(np.any(leaf) for leaf in jax.tree.leaves(after["lora"]))


@pytest.mark.long
def test_adapters_train_on_from_adapters(tmp_path, data, base):
    loop.run(config(tmp_path / "first", data, init=str(base), lora=LORA, steps=2))
    loop.run(config(tmp_path / "second", data, init=str(tmp_path / "first"), lora=LORA, steps=2))
    metadata = checkpoint.read_metadata(tmp_path / "second")
    assert (tmp_path / "second" / metadata.base).resolve() == base.resolve()
    for begin in (loop.run, dry_run.show):
        with pytest.raises(UserError, match="merge them with convert"):
            begin(config(tmp_path / "third", data, init=str(tmp_path / "first")))


@pytest.mark.slow
def test_a_changed_configuration_is_refused_unless_insisted_on(tmp_path, data, base):
    run = config(tmp_path / "run", data, init=str(base), steps=2)
    loop.run(run)
    run.data.seed = 3
    with pytest.raises(UserError, match=r"data.seed: 0 before, 3 now"):
        loop.run(run)
    run.steps = 3
    loop.run(run, allow_config_change=True)
    assert checkpoint.latest_step(tmp_path / "run") == 3


@pytest.mark.slow
def test_within_a_pack_no_other_packing_goes_on(tmp_path, data, base):
    run = config(tmp_path / "run", data, init=str(base), lora=LORA, steps=1)
    loop.run(run)
    record = checkpoint.read_record(tmp_path / "run", 1, checkpoint.read_metadata(tmp_path / "run"))

    def goes_on(**changed):
        settings = dataclasses.replace(run.data, **changed)
        checkpoints._set_position(iter(batches.batches(settings)), record, settings, "checkpoint 1 of run")

    goes_on(batch_size=16)  # as many rows are packed at a time
    for changed in ({"seq_len": 64}, {"packing": False}, {"batch_size": 136}):
        with pytest.raises(UserError, match=r"checkpoint 1 of run was made with another packing.* choose another out"):
            goes_on(**changed)


@pytest.mark.parametrize("packer", [{}, {"packer": {"seq_len": 64, "packing": True, "bins": 128}}])
def test_a_place_between_packs_or_of_an_earlier_version_is_one_in_any_packing(data, packer):
    settings = DataConfig(str(data), batch_size=8, seq_len=32)
    iterator, expected = (iter(batches.batches(settings)) for _ in range(2))
    for _ in range(16 if packer else 1):
        next(expected)
    checkpoints._set_position(iterator, {"data": expected.get_state(), **packer}, settings, "checkpoint 1")
    np.testing.assert_array_equal(next(iterator)["tokens"], next(expected)["tokens"])


@pytest.mark.slow
def test_where_and_how_fast_may_change_on_resume(tmp_path, data, base):
    run = config(tmp_path / "run", data, init=str(base), steps=4, checkpoint_every=2)
    loop.run(run)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    before = losses(tmp_path / "run")
    run.mesh, run.compute, run.log_every = MeshConfig(2, 2, 2), Compute(scan_layers=False), 1
    loop.run(run)
    np.testing.assert_allclose(losses(tmp_path / "run"), before, rtol=1e-4)


@pytest.mark.slow
def test_a_base_that_changed_is_refused(tmp_path, data, base):
    own = tmp_path / "base"
    shutil.copytree(base, own)
    loop.run(config(tmp_path / "run", data, init=str(own), lora=LORA, steps=1))
    shutil.rmtree(own)
    with pytest.raises(UserError, match="put the base back"):
        weights(tmp_path / "run")
    tiny.model_folder(own, data, seed=5)
    with pytest.raises(UserError, match="put the base back"):
        weights(tmp_path / "run")


@BEGINNINGS
def test_a_foreign_tokenizer_is_refused(tmp_path, data, base, begin):
    other = tmp_path / "base"
    shutil.copytree(base, other)
    shutil.rmtree(other / "tokenizer")
    with pytest.raises(UserError, match="no tokenizer"):
        begin(config(tmp_path / "run", data, init=str(other)))
    tokenizer.save(tokenizer.train_bpe(["five six seven eight nine ten"], 704), other / "tokenizer")
    with pytest.raises(UserError, match="made with another tokenizer"):
        begin(config(tmp_path / "run", data, init=str(other)))


@BEGINNINGS
def test_rows_longer_than_the_context_are_refused(tmp_path, data, base, begin):
    run = config(tmp_path / "run", data, init=str(base))
    run.data.seq_len = 320
    with pytest.raises(UserError, match=r"data\.seq_len=320 must be at most the model's context of 256 tokens"):
        begin(run)
    assert not (tmp_path / "run").exists()


@BEGINNINGS
def test_heads_that_the_mesh_does_not_divide_are_refused(tmp_path, data, base, begin):
    """4 heads; its 2 key/value heads may be repeated."""
    run = config(tmp_path / "run", data, init=str(base), mesh=MeshConfig(data=1, fsdp=1, tensor=8))
    with pytest.raises(UserError, match=r"mesh\.tensor=8 must divide num_heads=4 of the model"):
        begin(run)
    assert not (tmp_path / "run").exists()
    run = config(tmp_path, data, model=tiny.CONFIG, mesh=MeshConfig(data=1, fsdp=1, tensor=4))
    validate(run, devices=4)
    run.mesh.tensor = 8
    with pytest.raises(UserError, match=r"mesh\.tensor=8 must divide num_heads=4"):
        validate(run, devices=8)


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn"])
def test_a_context_is_that_after_rope_scaling(kind):
    scaled = LlamaConfig(max_positions=4096, rope_scaling=RopeScaling(kind, 4.0, original_positions=4096))
    assert too_long(4 * 4096, scaled) == []
    assert too_long(4 * 4096 + 1, scaled)
    assert too_long(4097, LlamaConfig(max_positions=4096))


def test_weights_that_are_trained_are_stored_in_float32(tmp_path, data):
    half = config(tmp_path, data, model=tiny.CONFIG, compute=Compute(param_dtype="bfloat16"))
    with pytest.raises(UserError, match=r"compute.param_dtype='bfloat16' is of frozen weights"):
        validate(half, devices=1)


def test_every_broken_rule_is_told_at_once(tmp_path, data):
    broken = config(tmp_path, data, accumulation=3, steps=0, lora=LoraConfig(rank=0), model=tiny.CONFIG)
    broken.optimizer.schedule = "linear"
    broken.compute.dtype = "float16"
    with pytest.raises(UserError) as error:
        validate(broken, devices=8)
    for line in (
        "steps=0, epochs=0.0, tokens=0: exactly one must be positive",
        "lora.rank=0 must be at least 1",
        "optimizer.schedule='linear' must be one of constant, cosine",
        "compute.dtype='float16' must be",
        "data.batch_size=8 must divide by mesh data × fsdp × accumulation = 8 × 1 × 3 = 24; try 24",
        "adapters on random weights",
    ):
        assert line in str(error.value)


@BEGINNINGS
def test_a_vocabulary_that_is_too_small_is_named(tmp_path, data, begin):
    small = tiny.CONFIG.__class__(**{**tiny.CONFIG.__dict__, "vocab_size": 100})
    with pytest.raises(UserError, match=r"model\.vocab_size=100 is below the tokenizer's"):
        begin(config(tmp_path / "run", data, model=small))


def test_a_checkpoint_of_another_shape_lists_what_differs(tmp_path, data, base):
    shutil.copytree(base, tmp_path / "base")
    metadata = checkpoint.read_metadata(tmp_path / "base")
    wider = dataclasses.replace(metadata.config, intermediate_size=64)
    checkpoint.write_metadata(tmp_path / "base", dataclasses.replace(metadata, config=wider))
    with pytest.raises(UserError, match=r"mlp\.down\.kernel: \(2, 48, 32\) where \(2, 64, 32\) is expected"):
        weights(tmp_path / "base")


@pytest.mark.slow
def test_the_saved_configuration_is_the_resolved_one(tmp_path, data, base):
    run = config(tmp_path / "run", data, init=str(base), steps=1)
    loop.run(run)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == as_dict(run)


_SCRIPT = """
from pathlib import Path
import sys
sys.path.insert(0, {root!r})
from tests.training.test_loop import config
from lema_jax.model.config import LoraConfig
from lema_jax.training import loop
fields = dict(init={base!r}, lora=LoraConfig(4, 8.0, 0.1), steps=40, checkpoint_every=5)
loop.run(config(Path(sys.argv[1]), Path({data!r}), **fields))
"""


@pytest.mark.long
def test_killed_again_and_again_a_run_ends_bit_equal(tmp_path, data, base):
    script = _SCRIPT.format(root=str(Path(__file__).parents[2]), data=str(data), base=str(base))
    command = [sys.executable, "-c", script]
    subprocess.run([*command, tmp_path / "straight"], check=True, capture_output=True)
    random = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:  # begin to count when it trains
            if line.startswith("step "):
                break
        time.sleep(random.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run([*command, tmp_path / "killed"], check=True, capture_output=True)
    assert_equal(weights(tmp_path / "killed"), weights(tmp_path / "straight"))
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
