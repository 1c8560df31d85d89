"""Each attention kernel in bfloat16 on the card: is it right, how far off, how fast; then which one steps may use.

    python -m tests.benchmarks.gpu_attention

Right means: as close to float32 attention as XLA's in bfloat16 (twice its error at most), and a gradient of exactly 0
with respect to other segments and later tokens. The fastest right one stands in WORK/kernel.txt for gpu_train. JAX's
call of cuDNN in packed layout, which is none of its public ones, is measured to learn whether it were worth having.
"""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.model import attention
from tests.benchmarks.gpu_lines import DRY, WORK, case, seconds

SEGMENTS = 64  # of a row at most, in packed layout
KINDS = ("xla", "cudnn", "triton", "packed")


def packed(q, k, v, segments):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    first = jnp.diff(segments, axis=1, prepend=-1) != 0
    index = jnp.cumsum(first, axis=1) - 1
    lengths = jax.vmap(lambda at: jnp.zeros(SEGMENTS, jnp.int32).at[at].add(1))(index)
    starts = jnp.cumsum(lengths, axis=1) - lengths
    there = lengths > 0
    ends = jnp.sum(there, axis=1, keepdims=True)
    edges = jnp.arange(SEGMENTS + 1)[None]
    offsets = jnp.where(edges < ends, jnp.pad(starts, ((0, 0), (0, 1))), -1)
    offsets = jnp.where(edges == ends, segments.shape[1], offsets).astype(jnp.int32)
    lengths = jnp.where(there, lengths, -1)
    return cudnn.dot_product_attention(
        q,
        k,
        v,
        q_seqlen=lengths,
        kv_seqlen=lengths,
        q_offsets=offsets,
        kv_offsets=offsets,
        scale=q.shape[-1] ** -0.5,
        mask_type=cudnn.MaskType.PADDING_CAUSAL,
    )


def of(kind):
    return packed if kind == "packed" else functools.partial(attention.attend_segments, kind=kind)


def loss(attend, q, k, v, segments, upstream):
    return jnp.sum(attend(q, k, v, segments).astype(jnp.float32) * upstream)


def arrays(name: str, heads: int, kv_heads: int, width: int):
    segments = np.load(WORK / f"{name}.npz", allow_pickle=False)["segment_ids"][0]
    random = np.random.default_rng(0)
    shape = lambda count: (*segments.shape, count, width)
    q, k, v, upstream = (random.normal(size=shape(count)) for count in (heads, kv_heads, kv_heads, heads))
    upstream *= (segments > 0)[..., None, None]
    return [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)], jnp.asarray(segments), jnp.asarray(upstream, jnp.float32)


def distance(found, truth):
    found, truth = (np.asarray(x, np.float64) for x in (found, truth))
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def leaks(attend, halves, segments, upstream) -> float:
    """The largest gradient with respect to tokens that one segment of each row must not see."""
    n = np.asarray(segments)
    asked = n == np.minimum(2, n.max(axis=1, keepdims=True))
    asked &= np.cumsum(asked, axis=1) <= asked.sum(axis=1, keepdims=True) // 2  # its first half
    others = ~asked
    only = upstream * asked[..., None, None]
    gradients = jax.jit(jax.grad(functools.partial(loss, attend), argnums=(1, 2)))(*halves, segments, only)
    largest = [float(jnp.max(jnp.abs(jnp.where(others[..., None, None], g, 0)).astype(jnp.float32))) for g in gradients]
    assert all(float(jnp.max(jnp.abs(g))) > 0 for g in gradients)
    return max(largest)


def both_ways(kind: str):
    return jax.jit(jax.value_and_grad(functools.partial(loss, of(kind)), argnums=(0, 1, 2)))


def result(kind: str, inputs, segments, upstream) -> list[jax.Array]:
    """Output (of what is no padding) and gradients."""
    out = jnp.where((segments > 0)[..., None, None], jax.jit(of(kind))(*inputs, segments), 0)
    return [out, *both_ways(kind)(*inputs, segments, upstream)[1]]


def measure(
    kind: str, halves, segments, upstream, truth, plain: list[float] | None, found: dict[str, Any]
) -> list[float]:
    """Errors of output and gradients; all that is found of the kernel goes into `found`."""
    errors = [distance(*pair) for pair in zip(result(kind, halves, segments, upstream), truth)]
    found["errors_out_q_k_v"] = [float(f"{error:.3g}") for error in errors]
    found["xla_errors"] = [float(f"{error:.3g}") for error in plain or errors]
    found["segments_a_row"] = int(jnp.max(segments))
    found["largest_leak"] = leaks(of(kind), halves, segments, upstream)
    run, forward, times = both_ways(kind), jax.jit(of(kind)), 2 if DRY else 20
    found["forward_ms"] = 1e3 * seconds(lambda: forward(*halves, segments), jax.block_until_ready, times)
    found["both_ways_ms"] = 1e3 * seconds(lambda: run(*halves, segments, upstream), jax.block_until_ready, times)
    close = all(error <= 2 * own for error, own in zip(errors, plain or errors))
    found["right"] = close and found["largest_leak"] == 0
    return errors


def main() -> None:
    # Kernel by kernel, the least sure last: one that breaks the card's context breaks what comes after it.
    right: dict[str, list[float]] = {}
    shapes = [("short", 4, 2, 32)] if DRY else [("short", 9, 3, 64), ("long", 14, 2, 64)]
    inputs, truths, plain = {}, {}, {}
    for shape in shapes:
        halves, segments, upstream = inputs[shape] = arrays(*shape)
        with jax.default_matmul_precision("highest"):
            truths[shape] = result("xla", [x.astype(jnp.float32) for x in halves], segments, upstream)
    for kind in KINDS:
        if kind == "packed":
            choose({kind: sum(times) for kind, times in right.items() if len(times) == len(shapes)})
        for name, heads, kv_heads, width in shapes:
            shape = (name, heads, kv_heads, width)
            with case("attention", f"{kind}, {name}, {heads}/{kv_heads} heads of {width}") as found:
                errors = measure(kind, *inputs[shape], truths[shape], plain.get(shape), found)
                plain.setdefault(shape, errors)
                if found["right"]:
                    right.setdefault(kind, []).append(found["both_ways_ms"])


def choose(milliseconds: dict[str, float]) -> None:
    """Writes the kernels that were right for every shape, the fastest first."""
    with case("attention", "the fastest right one") as found:
        fastest = sorted(milliseconds, key=milliseconds.__getitem__)
        found["ms"], found["kernel"] = milliseconds, fastest[0]
        (WORK / "kernel.txt").write_text(json.dumps(fastest))


if __name__ == "__main__":
    main()
