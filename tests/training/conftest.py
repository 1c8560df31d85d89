"""Runs of one shape share one `Setup`: tracing and compiling its programs is most of a small run."""

import dataclasses

import pytest

from lema_jax.training import loop
from lema_jax.training.config import DataConfig, DevConfig, GuardConfig, TrainConfig
from lema_jax.training.setup import Setup

_made: dict[str, Setup] = {}


def shared(config: TrainConfig, llama, mesh) -> Setup:
    # Without the fields that no program depends on; any other one makes another key.
    shape = dataclasses.replace(
        config,
        out="",
        init="",
        data=DataConfig("", config.data.batch_size, config.data.seq_len),
        dev=DevConfig(),
        guard=GuardConfig(config.guard.max_grad_norm),
        steps=config.steps if config.optimizer.schedule == "cosine" else 0,
        epochs=0.0,
        checkpoint_every=0,
        log_every=0,
        keep=0,
        tensorboard=False,
        wandb="",
    )
    key = repr((shape, llama, mesh.shape_tuple, [device.id for device in mesh.devices.flat]))
    if key not in _made:
        _made[key] = Setup(config, llama, mesh)
    return _made[key]


@pytest.fixture(autouse=True)
def _share(monkeypatch):
    monkeypatch.setattr(loop, "Setup", shared)
