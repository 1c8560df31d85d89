import os
import subprocess
import sys
from pathlib import Path

import pytest

from lema_jax.parallel import job

THREADS = """
import os
from lema_jax import cli
from lema_jax.parallel import job
cli.threads_for_virtual_devices()
job.join(job.Job(), preemptible=False)
import jax
count = len(jax.devices())
names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
print(count, sum(name.startswith("tf_XLAEigen") for name in names))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_a_cpu_device_has_threads_for_two_collectives():
    env = {name: value for name, value in os.environ.items() if name != "NPROC"} | {"JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run([sys.executable, "-c", THREADS], env=env, capture_output=True, text=True, check=True)
    devices, threads = map(int, done.stdout.split())
    assert devices == 8
    assert threads >= 2 * devices


def task(visible: str, local: int, tasks: str, node: int = 0, on_node: int = 8) -> dict[str, str]:
    return {
        "CUDA_VISIBLE_DEVICES": visible,
        "SLURM_LOCALID": str(local),
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_NODEID": str(node),
        "SLURM_GPUS_ON_NODE": str(on_node),
    }


EIGHT = "0,1,2,3,4,5,6,7"


@pytest.mark.parametrize(
    ("env", "own"),
    [
        (task(EIGHT, 0, "1"), list(range(8))),
        (task(EIGHT, 3, "8(x2)", node=1), [3]),
        (task(EIGHT, 1, "2"), [4, 5, 6, 7]),
        (task("0", 5, "8"), [0]),
        (task("0,1", 2, "4(x3)"), [0, 1]),
        (task("0,1,2,3", 1, "4,2", node=1, on_node=4), [2, 3]),
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, None),
    ],
    ids=["one", "each", "halves", "bound", "bound_pairs", "uneven", "alone", "no_slurm"],
)
def test_a_task_takes_the_gpus_that_are_its_own(env, own):
    assert job.own_gpus(env) == own


@pytest.mark.parametrize("tasks", [1, 2, 4, 8])
def test_the_tasks_of_a_node_share_out_its_gpus(tasks):
    shares = [job.own_gpus(task(EIGHT, local, str(tasks))) or [] for local in range(tasks)]
    assert sorted(gpu for share in shares for gpu in share) == list(range(8))
