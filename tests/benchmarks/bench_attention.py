"""Memory of attention, forward and backward, as the TPU compiler lays it out: one row of 32 heads on a chip.

python tests/benchmarks/bench_attention.py
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from lema_jax.ahead import compiler
from lema_jax.model import attention
from lema_jax.parallel import chips, sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh

HEADS, WIDTH = 32, 128


def temporaries(length: int, kind: str, kv_heads: int = HEADS) -> float:
    """GB on a chip of v5e."""
    mesh = make_mesh(MeshConfig(), compiler.devices(chips.named("v5e-4")))
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    shaped = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct((4, *shape), dtype, sharding=rows)
    q, k = shaped(length, HEADS, WIDTH), shaped(length, kv_heads, WIDTH)

    def loss(q, k, v, segments):
        return jnp.sum(attention.attend_segments(q, k, v, segments, kind).astype(jnp.float32) ** 2)

    with sharding.use(mesh):
        lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(q, k, k, shaped(length, dtype=jnp.int32))
    return compiler.compile(lowered).memory.temporaries / 1e9


if __name__ == "__main__":
    print("| tokens | attention | temporaries, GB |\n|---|---|---|")
    for length in (1024, 4096):
        for kind in ("xla", "splash"):
            print(f"| {length:,} | {kind} | {temporaries(length, kind):.2f} |", flush=True)
