"""Flops of JAX's splash attention kernels, whose custom calls the compiler does not count."""

import math

from lema_jax.ahead.hlo import Computation, Instruction
from lema_jax.model.flops import SPLASH_MATMULS, splash_matmul

_FLOATS = ("bf16", "f16", "f32")


def flops(call: Instruction, inside: Computation) -> float:
    """Flops of a kernel call; 0 unless it is splash attention."""
    kind = next((kind for kind in SPLASH_MATMULS if call.name.startswith(f"splash_mha_{kind}_")), None)
    if kind is None:
        return 0.0
    # Operands: block tables, queries [… N, T, H], keys [… K, S, H]; tables, segments and masks are integers.
    operands = [one.results[0] for name in call.operands if (one := inside.get(name)) and one.results]
    queries, keys = [one.dims for one in operands if one.dtype in _FLOATS and len(one.dims) >= 3][:2]
    # A table [… blocks, those that one sees at most], in dkv [… those that see one at most, blocks].
    seen, blocks = sorted(operands[0].dims[-2:])
    window = (seen - 1) * (queries[-2] // blocks) + 1
    return SPLASH_MATMULS[kind] * splash_matmul(math.prod(queries[:-2]), queries[-2], keys[-2], queries[-1], window)
