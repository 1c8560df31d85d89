"""A run whose folders all lie on gs://, against an emulator of the store.

STORAGE_EMULATOR_HOST and TENSORSTORE_GCS_HTTP_URL say where it listens (fake-gcs-server does, with a bucket `bucket`);
without them, or without the extra [gcs], this is skipped.
"""

import dataclasses
import importlib.util
import json
import os
import uuid
from pathlib import Path

import jax
import numpy as np
import pytest

from lema_jax import checkpoint, storage
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training import loop
from lema_jax.training.config import DataConfig, DevConfig, OptimizerConfig, TrainConfig
from tests import tiny

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None
    or not {"STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"} <= os.environ.keys(),
    reason="no emulator of gs:// is named by STORAGE_EMULATOR_HOST and TENSORSTORE_GCS_HTTP_URL",
)


def upload(folder: Path, target: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            place = storage.place(f"{target}/{file.relative_to(folder)}")
            place.write_bytes(file.read_bytes())


def weights(folder: str):
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    return jax.device_get(checkpoint.load_weights(folder, mesh, Compute())[1])


def test_a_run_on_gs_is_the_run_on_a_disk(tmp_path):
    bucket = f"gs://bucket/{uuid.uuid4().hex}"
    data = tiny.data_set(tmp_path / "data")
    base = tiny.model_folder(tmp_path / "base", data)
    upload(data, f"{bucket}/data")
    upload(base, f"{bucket}/models/base")

    def config(home: str, out: str, init: str, steps: int) -> TrainConfig:
        return TrainConfig(
            out=f"{home}/{out}",
            data=DataConfig(f"{home}/data", batch_size=8, seq_len=32),
            steps=steps,
            init=f"{home}/{init}",
            lora=LoraConfig(4),
            optimizer=OptimizerConfig(learning_rate=1e-2),
            dev=DevConfig(path=f"{home}/data"),
            checkpoint_every=2,
            keep=1,
        )

    loop.run(config(str(tmp_path), "run", "base", 6))
    loop.run(config(bucket, "runs/lema", "models/base", 4))
    # As a preemption leaves it: a step without its commit, which is not to be gone on from.
    run = f"{bucket}/runs/lema"
    (storage.place(run) / "checkpoints" / "5" / "_METADATA").write_text("half")
    assert checkpoint.latest_step(run) == 4
    loop.run(config(bucket, "runs/lema", "models/base", 6), allow_config_change=True)

    assert checkpoint.read_metadata(run).base == "../../models/base"
    assert checkpoint.best_step(run) == checkpoint.best_step(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, weights(run), weights(str(tmp_path / "run")))
    assert tokenizer.fingerprint(tokenizer.load(run)) == tokenizer.fingerprint(tokenizer.load(data))
    for name in ("metrics.jsonl", "dev.jsonl"):
        there, wanted = (
            [json.loads(line) for line in (storage.place(folder) / name).read_text().splitlines()]
            for folder in (run, tmp_path / "run")
        )
        assert [(line["step"], line["loss"]) for line in there] == [(line["step"], line["loss"]) for line in wanted]
    assert len((storage.place(run) / "starts.jsonl").read_text().splitlines()) == 2

    apart = dataclasses.replace(config(bucket, "runs/other", "models/base", 2), init=str(base))
    with pytest.raises(UserError, match="must be together"):
        loop.run(apart)
