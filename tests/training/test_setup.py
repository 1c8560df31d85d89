"""Runs of one process share their programs exactly where these are equal."""

import dataclasses
import functools

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lema_jax.model.config import Compute, LoraConfig
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training import setup
from lema_jax.training.config import DataConfig, DevConfig, GuardConfig, OptimizerConfig, TrainConfig
from tests import tiny

BASE = TrainConfig(
    "a",
    DataConfig("a", 4, 8, examples_per_step=4),
    steps=3,
    init="a",
    mesh=MeshConfig(1, 1, 1),
    accumulation=2,
)
# Of each, that another run of a study may have in its place.
FREE = {
    "out": "b",
    "init": "b",
    "steps": 5,  # of a constant schedule
    "epochs": 2.0,
    "tokens": 9,
    "dev": DevConfig("b", 3),
    "guard": GuardConfig(skip_steps=3, max_chosen_fall=2.0),
    "seed": 7,
    "log_every": 1,
    "checkpoint_every": 1,
    "keep": 1,
    "tensorboard": True,
    "wandb": "b",
    "data": DataConfig("b", 4, 8, packing=False, seed=7, examples_per_step=4, order="stored"),
}
SHAPING = {
    "rows": {"data": DataConfig("a", 8, 8, examples_per_step=4)},
    "length": {"data": DataConfig("a", 4, 16, examples_per_step=4)},
    "all rows": {"data": DataConfig("a", 4, 8)},
    "adapters": {"lora": tiny.LORA},
    "dropout": {"lora": LoraConfig(rank=4, alpha=8.0, dropout=0.1)},
    "rate": {"optimizer": OptimizerConfig(learning_rate=1e-3)},
    "schedule": {"optimizer": OptimizerConfig(schedule="cosine")},
    "remat": {"compute": Compute(remat="full")},
    "bound": {"guard": GuardConfig(max_grad_norm=1.0)},
    "micro-batches": {"accumulation": 4},
    "objective": {"objective": "preference"},
}


def of(config: TrainConfig) -> setup.Setup:
    return setup.of(config, tiny.CONFIG, make_mesh(config.mesh, jax.devices()[:1]))


@functools.cache
def program(made: setup.Setup) -> str:
    with sharding.use(made.mesh):
        return made.lowered_step().as_text()


@pytest.mark.parametrize("lora", [None, SHAPING["dropout"]["lora"]], ids=["all weights", "adapters"])
def test_what_shapes_no_program_is_shared_and_makes_the_same_one(lora):
    base, other = (dataclasses.replace(BASE, lora=lora, **fields) for fields in ({}, FREE))
    assert of(base) is of(other)
    mesh = make_mesh(base.mesh, jax.devices()[:1])
    assert program(setup.Setup(base, tiny.CONFIG, mesh)) == program(setup.Setup(other, tiny.CONFIG, mesh))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPING)
def test_what_shapes_a_program_makes_another(name):
    changed = dataclasses.replace(BASE, **SHAPING[name])
    assert of(BASE) is not of(changed)
    assert program(of(BASE)) != program(of(changed))


@pytest.mark.slow
def test_lengths_of_a_cosine_make_others():
    one = dataclasses.replace(BASE, **SHAPING["schedule"])
    assert program(of(one)) != program(of(dataclasses.replace(one, steps=5)))


def test_every_field_is_named_here():
    named = FREE.keys() | {name for fields in SHAPING.values() for name in fields}
    assert {field.name for field in dataclasses.fields(TrainConfig)} - named == {"model", "preference", "mesh"}


def test_the_latest_are_kept(monkeypatch):
    monkeypatch.setattr(setup, "_KEPT", 2)
    monkeypatch.setattr(setup, "_kept", {})
    first, second = of(BASE), of(dataclasses.replace(BASE, accumulation=1))
    assert of(BASE) is first
    of(dataclasses.replace(BASE, accumulation=4))
    assert of(BASE) is first
    assert of(dataclasses.replace(BASE, accumulation=1)) is not second


def test_arrays_that_are_being_saved_may_be_given_to_the_next_step(tmp_path):
    """What a step does with scanned weights while their checkpoint is still being written."""
    mesh = make_mesh(MeshConfig(1, 4, 2), jax.devices())
    made = {
        f"{n}": jax.device_put(np.full((256, 512), n, np.float32), NamedSharding(mesh, PartitionSpec("fsdp", "tensor")))
        for n in range(9)
    }
    with ocp.training.Checkpointer(tmp_path / "checkpoints") as saver:
        saver.save_checkpointables_async(1, {"state": made})
        jax.tree.map(lambda array: array.delete(), made)
    with ocp.training.Checkpointer(tmp_path / "checkpoints") as saver:
        read = saver.load_checkpointables(1)["state"]
    for n in range(9):
        np.testing.assert_array_equal(read[f"{n}"], np.full((256, 512), n))
