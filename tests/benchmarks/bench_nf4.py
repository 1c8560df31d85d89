"""Ways to read nf4 codes, and products with nf4 kernels beside dense ones.

    python tests/benchmarks/bench_nf4.py [--inputs=1536] [--outputs=576] [--rows=512]

Prints one JSON line: nanoseconds for each weight (best of several, on the default device).
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.model import linear, nf4
from lema_jax.model.nf4 import VALUES

POLYNOMIAL = np.polyfit(np.arange(16) - 7.5, VALUES.astype(np.float64), 15)  # not exact


def take(codes: jax.Array) -> jax.Array:
    return jnp.take(jnp.asarray(VALUES), codes.astype(jnp.int32), mode="clip")


def select_n(codes: jax.Array) -> jax.Array:
    return jax.lax.select_n(codes.astype(jnp.int32), *[jnp.full(codes.shape, value) for value in VALUES])


def polynomial(codes: jax.Array) -> jax.Array:
    return jnp.polyval(jnp.asarray(POLYNOMIAL, jnp.float32), codes.astype(jnp.float32) - 7.5)


def one_hot(codes: jax.Array) -> jax.Array:
    return jax.nn.one_hot(codes, 16) @ VALUES


def nanoseconds(work: Callable[..., Any], weights: int, *arrays: Any, repeats: int = 15) -> float:
    """For each weight."""
    compiled = jax.jit(work)
    jax.block_until_ready(compiled(*arrays))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        best = min(best, time.perf_counter() - start)
    return round(1e9 * best / weights, 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, size in (("inputs", 1536), ("outputs", 576), ("rows", 512)):
        parser.add_argument(f"--{name}", type=int, default=size)
    given = parser.parse_args()
    dense = jax.random.normal(jax.random.key(0), (given.inputs, given.outputs))
    kernel, x = nf4.quantise(dense), jnp.ones((given.rows, given.inputs))
    codes = jnp.tile(kernel.codes, (1, 2, 1)) & 15
    forms = {"selects": lambda codes: nf4._look_up(codes, VALUES)}
    forms |= {form.__name__: form for form in (take, select_n, polynomial, one_hot)}
    found = {name: nanoseconds(form, dense.size, codes) for name, form in forms.items()}
    found["dequantise"] = nanoseconds(lambda kernel: nf4.dequantise(kernel, x.dtype), dense.size, kernel)
    found["dense product"] = nanoseconds(jnp.matmul, dense.size, x, dense)
    quantised = lambda x, kernel: linear.matmul(x, kernel, ("embed", "mlp"))
    found["nf4 product"] = nanoseconds(quantised, dense.size, x, kernel)
    gradient = lambda of: jax.grad(lambda x, kernel: jnp.sum(of(x, kernel)))
    found["dense product and gradient of x"] = nanoseconds(gradient(jnp.matmul), dense.size, x, dense)
    found["nf4 product and gradient of x"] = nanoseconds(gradient(quantised), dense.size, x, kernel)
    print(json.dumps({"device": jax.devices()[0].device_kind} | vars(given) | {"ns_per_weight": found}))


if __name__ == "__main__":
    main()
