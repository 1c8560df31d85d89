"""Matrix products inside JAX's splash attention kernels, which no compiler counts.

The kernel works in blocks of queries × keys and skips those that causality empties.
"""

from lema_jax.ahead.hlo import Computation, Instruction

BLOCK = 512  # the longest side of a block; see `model.attention`
# Products of a block: q kᵀ and p v; q kᵀ, do vᵀ and ds k; q kᵀ, do vᵀ, pᵀ do and dsᵀ q.
PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}


def flops(call: Instruction, inside: Computation) -> float:
    """Of a kernel call; 0 for a kernel that is not splash attention's."""
    kind = next((kind for kind in PRODUCTS if call.name.startswith(f"splash_mha_{kind}_")), None)
    if kind is None:
        return 0.0
    # Operands: tables of blocks, then queries [… N, T, H] and keys [… K, S, H].
    wide = [one.results[0].dims for name in call.operands if (one := inside.get(name)) and one.results]
    queries, keys = [dims for dims in wide if len(dims) >= 3 and dims[-1] >= 64][:2]
    rows = 1
    for size in queries[:-2]:
        rows *= size
    return PRODUCTS[kind] * product(rows, queries[-2], keys[-2], queries[-1])


def product(heads: int, queries: int, keys: int, width: int) -> float:
    """Flops of one causal product [T, H] × [H, S] for that many heads, in whole blocks."""
    blocks = -(-queries // min(queries, BLOCK))
    return 2.0 * heads * queries * keys * width * (blocks + 1) / (2 * blocks)
