"""Several processes over loopback are one program: same losses, one checkpoint, and no hang when one is lost."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lema_jax import checkpoint
from tests.training.test_loop import assert_equal, base, data, losses, weights

__all__ = ["base", "data"]  # fixtures

pytestmark = pytest.mark.slow

_SCRIPT = """
import sys
from pathlib import Path
from absl import app
from lema_jax.model.config import LoraConfig
from lema_jax.parallel import job
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training import loop
from tests.training.test_loop import config
out, data, base, mesh, steps = sys.argv[1:6]

def main(argv):
    job.join(heeds_notice=True)
    sizes = MeshConfig(*map(int, mesh.split(",")))
    fields = dict(init=base, lora=LoraConfig(4, 8.0, 0.1), steps=int(steps), checkpoint_every=2, mesh=sizes)
    loop.run(config(Path(out), Path(data), **fields))

app.run(main, sys.argv[:1] + sys.argv[6:])
"""


def begin(count: int, *arguments: object) -> list[subprocess.Popen]:
    """`count` processes that share eight devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(8 // count)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    told = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"] if count > 1 else []
    return [
        subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, *map(str, arguments), *told, *([f"--process={index}"] if told else [])],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def run(count: int, *arguments: object) -> None:
    processes = begin(count, *arguments)
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, said


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data, base) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    run(1, out, data, base, "2,2,2,1", 6)
    return out


@pytest.mark.parametrize(("count", "mesh"), [(2, "2,2,2,1"), (4, "1,4,1,2")])
def test_processes_have_the_losses_of_one(tmp_path, data, base, alone, count, mesh):
    run(count, tmp_path / "run", data, base, mesh, 6)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone), rtol=1e-4)
    assert checkpoint.steps(tmp_path / "run") == [2, 4, 6]


def test_another_number_of_processes_goes_on_from_the_same_checkpoint(tmp_path, data, base, alone):
    shutil.copytree(alone, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    run(2, tmp_path / "run", data, base, "2,2,2,1", 6)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone), rtol=1e-4)
    same = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3)
    after, expected = weights(tmp_path / "run"), weights(alone)
    assert_equal(after["params"], expected["params"])
    for name in ("q", "o"):
        same(after["lora"]["layers"]["attn"][name]["b"], expected["lora"]["layers"]["attn"][name]["b"])


def test_a_notice_to_one_process_stops_all_at_one_step(tmp_path, data, base):
    started = begin(2, tmp_path / "run", data, base, "2,2,2,1", 3000)
    for line in started[0].stdout:
        if line.startswith("step 3/"):
            started[1].send_signal(signal.SIGTERM)
            break
    said = [process.communicate(timeout=120)[0] for process in started]
    assert all("Preempted: SIGTERM: saved at step" in text for text in said), said
    assert 3 <= checkpoint.latest_step(tmp_path / "run") < 3000


def test_a_lost_process_ends_the_others_within_a_bounded_time(tmp_path, data, base):
    started = begin(2, tmp_path / "run", data, base, "2,2,2,1", 3000)
    for line in started[0].stdout:
        if line.startswith("step 3/"):
            started[1].kill()
            break
    said, _ = started[0].communicate(timeout=150)
    assert started[0].returncode != 0
    assert said
