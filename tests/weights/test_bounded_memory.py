"""Reading into shards: only the slices of each device, in memory for those and one tensor."""

import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from memory import Memory, tensors

from lema_jax import checkpoint
from lema_jax.model import presets
from lema_jax.model.config import LlamaConfig
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.weights import names, safetensors

SMALL = LlamaConfig(64, 32, 64, 3, 8, 4, 8)


def shardings(config, mesh):
    return sharding.of(checkpoint.abstract_variables(Llama(config), mesh)["params"])


@pytest.mark.parametrize("shape", [(1, 4, 2), (2, 2, 2), (1, 1, 8)])
def test_every_device_reads_its_own_slices(shape):
    if len(jax.devices()) < 8:
        pytest.skip("needs 8 devices")
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[:8])
    source = Memory(tensors(SMALL))
    params = names.load_model(source, SMALL, shardings=shardings(SMALL, mesh))
    whole = names.load_model(Memory(tensors(SMALL)), SMALL)
    jax.tree.map(np.testing.assert_array_equal, params, whole)
    held = sum(shard.data.size for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards)
    assert sum(size for _, size in source.reads) <= held
    cut = shape[1] * shape[2]
    for name, size in source.reads:
        if source.tensors[name].ndim == 2:
            assert size == source.tensors[name].size // cut


SHARE = """
import json, resource, sys, time
from pathlib import Path
import jax, numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 256)
from lema_jax import checkpoint
from lema_jax.model import presets
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.weights import names, safetensors

def resident():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

config = presets.get("llama-2-70b")
mesh = make_mesh(MeshConfig(fsdp=32, tensor=8))
tree = sharding.of(checkpoint.abstract_variables(Llama(config), mesh)["params"])
source = safetensors.open_folder(sys.argv[1])
names.check_model(source, config)
mine = jax.devices()[17]
before = resident()
held, largest, kept = 0, 0, []
for entry in names.table(config):
    index = flatten_dict(tree, sep="/")[entry.path].devices_indices_map(entry.full_shape)[mine]
    kept.append(names.read_part(source, entry, np.dtype("bfloat16"), index))
    held += kept[-1].nbytes
    largest = max(largest, 2 * int(np.prod(entry.shape)))
print(json.dumps({"held": held, "largest": largest, "grown": resident() - before}))
"""


def sparse_checkpoint(folder: Path, config: LlamaConfig, shards: int) -> int:
    """A bfloat16 checkpoint in holes: right names, shapes and sizes, nothing on the disk. Returns its bytes."""
    weight_map, total = {}, 0
    listed = [(name, entry.hf_shape) for entry in names.table(config) for name in entry.names]
    for number in range(shards):
        header, at = {}, 0
        for name, shape in listed[number::shards]:
            size = 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            weight_map[name] = f"model-{number}.safetensors"
            at += size
        text = json.dumps(header).encode()
        with open(folder / f"model-{number}.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + at)
        total += at
    (folder / safetensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return total


@pytest.mark.long
def test_one_of_256_devices_reads_its_share_of_a_70b_checkpoint(tmp_path):
    config = presets.get("llama-2-70b")
    total = sparse_checkpoint(tmp_path, config, 15)
    assert total == 2 * 68_976_648_192
    done = subprocess.run([sys.executable, "-c", SHARE, str(tmp_path)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(found)
    assert total / 256 <= found["held"] <= total / 256 + 2**22  # norms lie on every device
    assert found["grown"] <= found["held"] + found["largest"] + 2**26
