"""Several processes over loopback are one program: same losses, one checkpoint, and no hang when one is lost."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from lema_jax import checkpoint
from tests import several, tiny
from tests.training.test_loop import assert_equal, base, data, losses, weights

__all__ = ["base", "data"]  # fixtures

pytestmark = pytest.mark.long

_ANY = """
import sys
from pathlib import Path
from lema_jax.model.config import LoraConfig
from lema_jax.parallel import job
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training import loop
from tests.training.{module} import config
out, data, base, mesh, steps = sys.argv[1:6]

given = dict(flag[2:].split("=") for flag in sys.argv[6:])
numbers = {name: int(value) for name, value in given.items() if name != "coordinator"}
job.join(job.Job(**given | numbers), preemptible=True)
sizes = MeshConfig(*map(int, mesh.split(",")))
fields = dict(init=base, lora=LoraConfig(4, 8.0, 0.1), steps=int(steps), checkpoint_every=2, mesh=sizes)
loop.run(config(Path(out), Path(data), **fields))
"""
_SCRIPT = _ANY.replace("{module}", "test_loop")
_PAIRS = _ANY.replace("{module}", "test_preference").replace("Path(data), **", "Path(data), Path(base), **")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data, base) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    several.run(1, "-c", _SCRIPT, out, data, base, "2,2,2,1", 6)
    return out


@pytest.mark.parametrize(("count", "mesh"), [(2, "2,2,2,1"), (4, "1,4,1,2")])
def test_processes_have_the_losses_of_one(tmp_path, data, base, alone, count, mesh):
    several.run(count, "-c", _SCRIPT, tmp_path / "run", data, base, mesh, 6)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone), rtol=1e-4)
    assert checkpoint.steps(tmp_path / "run") == [2, 4, 6]


def test_another_number_of_processes_goes_on_from_the_same_checkpoint(tmp_path, data, base, alone):
    shutil.copytree(alone, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "6")
    several.run(2, "-c", _SCRIPT, tmp_path / "run", data, base, "2,2,2,1", 6)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone), rtol=1e-4)
    same = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3)
    after, expected = weights(tmp_path / "run"), weights(alone)
    assert_equal(after["params"], expected["params"])
    for name in ("q", "o"):
        same(after["lora"]["layers"]["attn"][name]["b"], expected["lora"]["layers"]["attn"][name]["b"])


def test_preference_pairs_have_the_losses_and_the_reference_of_one_process(tmp_path, base):
    found = []
    for count in (1, 2):
        pairs, run = tiny.pair_set(tmp_path / f"pairs {count}"), tmp_path / f"run {count}"
        several.run(count, "-c", _PAIRS, run, pairs, base, "2,2,2,1", 4)
        (reference,) = (pairs / "reference").iterdir()
        found.append((losses(run), reference.name, reference.read_bytes()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    assert found[0][1:] == found[1][1:]


def test_a_notice_to_one_process_stops_all_at_one_step(tmp_path, data, base):
    started = several.begin(2, "-c", _SCRIPT, tmp_path / "run", data, base, "2,2,2,1", 3000)
    for line in started[0].stdout:
        if line.startswith("step 3/"):
            started[1].send_signal(signal.SIGTERM)
            break
    said = [process.communicate(timeout=120)[0] for process in started]
    assert all("Interrupted: SIGTERM: saved at step" in text for text in said), said
    assert 3 <= checkpoint.latest_step(tmp_path / "run") < 3000


def test_a_lost_process_ends_the_others_within_a_bounded_time(tmp_path, data, base):
    started = several.begin(2, "-c", _SCRIPT, tmp_path / "run", data, base, "2,2,2,1", 3000)
    for line in started[0].stdout:
        if line.startswith("step 3/"):
            started[1].kill()
            break
    said, _ = started[0].communicate(timeout=150)
    assert started[0].returncode != 0
    assert said
