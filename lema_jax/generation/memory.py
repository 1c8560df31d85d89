"""The memory that a cache takes, and the largest batch that fits."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from lema_jax.errors import UserError
from lema_jax.generation import lengths
from lema_jax.model import attention
from lema_jax.model.llama import Llama


def cache_bytes(model: Llama, rows: int, slots: int, kind: str) -> int:
    """Bytes of a cache of `rows` rows and `slots` positions, over all devices, in one of the formats `config.CACHES`.

    2 (keys, values) · layers · rows · stored key/value heads · slots · bytes of a head: its width times those of the
    dtype, or in int8 its width and a float32 scale.
    """
    c = model.config
    head = c.head_dim + 4 if kind == "int8" else c.head_dim * jnp.dtype(model.compute.dtype).itemsize
    return 2 * c.num_layers * rows * attention.stored_kv_heads(c.num_kv_heads) * slots * head


def free_bytes(device: jax.Device) -> int | None:
    """A device's free bytes; on a CPU its share of the machine's. None where the platform does not report them."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    if device.platform == "cpu" and meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024 // jax.local_device_count()
    return None


class CacheTooLarge(UserError):
    """A cache does not fit; `fits` is the largest batch that does, 0 for none, and `found` says what was found."""

    def __init__(self, found: str, fits: int, kind: str) -> None:
        self.found, self.fits = found, fits
        remedy = f"--batch_size={fits} fits" if fits else "not even the smallest batch fits"
        shorter = "" if kind == "int8" else ", or take --cache=int8"
        super().__init__(f"{found}; {remedy}, or lower --max_new_tokens{shorter}")


def require(model: Llama, mesh: Mesh, rows: int, slots: int, kind: str, *, of_batch: int) -> None:
    """Checks that the caches fit each device.

    Args:
      of_batch: devices that rows are sharded over; it divides `rows` and the batch that an error proposes.

    Raises:
      CacheTooLarge: it does not fit; the message has the largest batch that does.
    """
    free = _least_free(mesh)
    # A cache grows by a copy, beside which the former one, of at most three quarters of the size, exists until then. A
    # prefilled group and its copy of the same length are there meanwhile, and a prefix for each device.
    parts = of_batch * mesh.shape["tensor"]
    held = lambda rows: 1.75 * rows + 2 * min(lengths.GROUP, rows) + of_batch
    need = lambda rows: math.ceil(held(rows) / rows * cache_bytes(model, rows, slots, kind) / parts)
    if free is None or need(rows) <= free:
        return
    fits = next((fewer for fewer in range(rows - of_batch, 0, -of_batch) if need(fewer) <= free), 0)
    found = (
        f"{rows} answers in flight of up to {slots:,} tokens each, prompt included, take {size(need(rows))} of cache "
        f"on a device, which has {size(free)} left"
    )
    raise CacheTooLarge(found, fits, kind)


def _least_free(mesh: Mesh) -> int | None:
    """Free bytes of a device of the process that has the least, so that all processes find the same to fit."""
    free = free_bytes(mesh.local_devices[0])
    if free is None or jax.process_count() == 1:
        return free
    return int(multihost_utils.process_allgather(np.uint32(free >> 20)).min()) << 20


def size(count: int) -> str:
    """Bytes in GB or MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
