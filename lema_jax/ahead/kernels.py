"""Flops of JAX's splash attention kernels, whose custom calls the compiler does not count."""

import math

from lema_jax.ahead.hlo import Computation, Instruction
from lema_jax.model.flops import SPLASH_MATMULS, splash_matmul


def flops(call: Instruction, inside: Computation) -> float:
    """Flops of a kernel call; 0 unless it is splash attention."""
    kind = next((kind for kind in SPLASH_MATMULS if call.name.startswith(f"splash_mha_{kind}_")), None)
    if kind is None:
        return 0.0
    # Operands: block tables, then queries [… N, T, H] and keys [… K, S, H].
    shapes = [one.results[0].dims for name in call.operands if (one := inside.get(name)) and one.results]
    queries, keys = [dims for dims in shapes if len(dims) >= 3 and dims[-1] >= 64][:2]
    return SPLASH_MATMULS[kind] * splash_matmul(math.prod(queries[:-2]), queries[-2], keys[-2], queries[-1])
