"""Matrix products inside JAX's splash attention kernels, which no compiler counts."""

import math

from lema_jax.ahead.hlo import Computation, Instruction
from lema_jax.model.flops import SPLASH, splash_product


def flops(call: Instruction, inside: Computation) -> float:
    """Of a kernel call; 0 for a kernel that is not splash attention's."""
    kind = next((kind for kind in SPLASH if call.name.startswith(f"splash_mha_{kind}_")), None)
    if kind is None:
        return 0.0
    # Operands: tables of blocks, then queries [… N, T, H] and keys [… K, S, H].
    wide = [one.results[0].dims for name in call.operands if (one := inside.get(name)) and one.results]
    queries, keys = [dims for dims in wide if len(dims) >= 3 and dims[-1] >= 64][:2]
    return SPLASH[kind] * splash_product(math.prod(queries[:-2]), queries[-2], keys[-2], queries[-1])
