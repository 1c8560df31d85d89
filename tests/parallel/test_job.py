import os
import subprocess
import sys
from pathlib import Path

import pytest

THREADS = """
import os
from lema_jax import cli
from lema_jax.parallel import job
cli.threads_for_virtual_devices()
job.join(job.Job(), heeds_notice=False)
import jax
count = len(jax.devices())
names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
print(count, sum(name.startswith("tf_XLAEigen") for name in names))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_a_cpu_device_has_threads_for_two_collectives():
    env = {name: value for name, value in os.environ.items() if name != "NPROC"} | {"JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run([sys.executable, "-c", THREADS], env=env, capture_output=True, text=True, check=True)
    devices, threads = map(int, done.stdout.split())
    assert devices == 8
    assert threads >= 2 * devices
