"""How much memory a cache takes, how much there is, and which batch fits."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lema_jax.errors import UserError
from lema_jax.model import attention
from lema_jax.model.llama import Llama


def cache_bytes(model: Llama, rows: int, slots: int, kind: str) -> int:
    """2 (keys, values) · layers · rows · key/value heads as held · slots · bytes of a head's: its width times those of
    the type, or in 8 bits its width and a float32 scale."""
    c = model.config
    head = c.head_dim + 4 if kind == "int8" else c.head_dim * jnp.dtype(model.compute.dtype).itemsize
    return 2 * c.num_layers * rows * attention.held(c.num_kv_heads) * slots * head


def free_bytes(device: jax.Device) -> int | None:
    """What a device still has; on a CPU, what the machine has. None where nobody says."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = Path("/proc/meminfo")
    if device.platform == "cpu" and meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024 // jax.local_device_count()
    return None


def require(model: Llama, mesh: Mesh, rows: int, slots: int, kind: str, *, of_batch: int) -> None:
    """Checks that a cache fits each device; `rows` is a multiple of `of_batch`, and so is the batch that is proposed.

    Raises:
      UserError: it does not; the message has the largest batch that fits.
    """
    free = free_bytes(mesh.local_devices[0])
    # a cache grows by copying: the one before it, at most three quarters of its size, exists beside it for a moment
    need = lambda rows: math.ceil(1.75 * cache_bytes(model, rows, slots, kind) / (of_batch * mesh.shape["tensor"]))
    if free is None or need(rows) <= free:
        return
    fits = free // need(of_batch) * of_batch
    remedy = f"--batch_size={fits} fits" if fits else "not even the smallest batch fits"
    shorter = "" if kind == "int8" else ", or take --cache=int8"
    raise UserError(
        f"{rows} answers under way of up to {slots:,} tokens each, prompt included, take {size(need(rows))} of cache "
        f"on a device, which has {size(free)} left; {remedy}, or lower --max_new_tokens{shorter}"
    )


def size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
