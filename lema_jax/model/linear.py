"""The linear layer: a dense or quantised kernel, an optional LoRA adapter, and the sharding constraints around them.

Shapes: I input features, O output features, R adapter rank; B batch, T time, D model width; `…` any leading axes.
"""

import functools
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lema_jax.model import int8, nf4
from lema_jax.model.config import LoraConfig
from lema_jax.model.int8 import Int8
from lema_jax.model.nf4 import Nf4


def lookup(table_VD: jax.Array, tokens: jax.Array) -> jax.Array:
    """The rows of a table, […] -> […, D]; the gradient of each row is summed in float32.

    In bfloat16 the sum over a frequent token's places would stop growing: of ones, at 256.
    """

    @jax.custom_vjp
    def take(table: jax.Array, tokens: jax.Array) -> jax.Array:
        return jnp.take(table, tokens, axis=0)

    def backward(tokens: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
        sums = jnp.zeros(table_VD.shape, jnp.float32).at[tokens].add(gradient.astype(jnp.float32))
        return sums.astype(table_VD.dtype), None

    take.defvjp(lambda table, tokens: (take(table, tokens), tokens), backward)
    return take(table_VD, tokens)


def shard(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains an array to its logical axes; a no-op without a mesh. An unknown name is an error."""
    return nn.with_logical_constraint(x, axes, fallback=nn.spmd.RulesFallback.RAISE_ERROR)


# Logical axes of a gathered kernel, where they differ from those of the stored one.
_GATHERED = {"embed": "width", "adapter_heads": "heads", "adapter_kv_heads": "kv_heads", "adapter_mlp": "mlp"}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather(kernel: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """All-gathers a kernel over `fsdp`; its gradient is reduce-scattered to the kernel's own sharding.

    Explicit constraint: otherwise XLA emits windowed einsums and all-reduces full gradients.
    """
    return shard(kernel, *(_GATHERED.get(axis, axis) for axis in axes))


gather.defvjp(lambda kernel, axes: (gather(kernel, axes), None), lambda axes, _, gradient: (shard(gradient, *axes),))


FORMATS: dict[str, ModuleType] = {"nf4": nf4, "int8": int8}  # of quantised kernels
Quantised = Nf4 | Int8
Kernel = jax.Array | Quantised


def quantised(name: str, kernel: jax.Array, axes: Sequence[str], kind: str) -> Any:
    """A dense kernel [… I, O] quantised to a format of `FORMATS`, each part boxed with its logical axes.

    Raises:
      UserError: the shape of the kernel, which `name` names, does not fit nf4.
    """
    if kind == "nf4":
        nf4.check(name, kernel.shape[-2:])
    *leading, inputs, outputs = axes
    box = lambda names, part: nn.LogicallyPartitioned(part, (*leading, *names))
    return jax.tree.map(box, FORMATS[kind].axes(inputs, outputs), FORMATS[kind].quantise(kernel), is_leaf=_is_names)


def dense(kernel: Kernel, axes: tuple[str, str], dtype: jnp.dtype) -> jax.Array:
    """The gathered, dense kernel [I, O]. Of a quantised one the codes are gathered: they are fewer bytes."""
    if not isinstance(kernel, Quantised):
        return gather(kernel.astype(dtype), axes)
    quantisation = nf4 if isinstance(kernel, Nf4) else int8
    parts = jax.tree.map(lambda names, part: gather(part, names), quantisation.axes(*axes), kernel, is_leaf=_is_names)
    return quantisation.dequantise(parts, dtype)


def _is_names(node: Any) -> bool:
    return isinstance(node, tuple)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: jax.Array, kernel: Kernel, axes: tuple[str, str]) -> jax.Array:
    """x [… I] @ kernel [I, O] -> [… O] in x's dtype. A quantised kernel has no gradient.

    The residual is the sharded, quantised kernel; it is dequantised per matmul.
    """
    if isinstance(kernel, Quantised):
        x, kernel = jax.lax.optimization_barrier((x, kernel))  # else XLA dequantises early, or hoists it out of a loop
    return x @ dense(kernel, axes, x.dtype)


def _matmul_forward(
    x: jax.Array, kernel: Kernel, axes: tuple[str, str]
) -> tuple[jax.Array, tuple[jax.Array | None, Kernel]]:
    return matmul(x, kernel, axes), (None if isinstance(kernel, Quantised) else x, kernel)


def _matmul_backward(
    axes: tuple[str, str], residuals: tuple[jax.Array | None, Kernel], gradient: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    x, kernel = residuals
    if x is None or isinstance(kernel, Quantised):
        gradient, kernel = jax.lax.optimization_barrier((gradient, kernel))  # else CSE keeps the forward pass's
        return gradient @ dense(kernel, axes, gradient.dtype).T, None
    kernel_gradient = shard(jnp.einsum("...i,...o->io", x, gradient), *axes)
    return gradient @ dense(kernel, axes, x.dtype).T, kernel_gradient.astype(kernel.dtype)


matmul.defvjp(_matmul_forward, _matmul_backward)


def num_shards(axis: str) -> int:
    """Into how many shards the mesh divides a logical axis."""
    (over,) = nn.logical_to_mesh_axes((axis,)) or (None,)
    axes = () if over is None else (over,) if isinstance(over, str) else over
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)


# Sequence parallelism (arXiv 2205.05198): between blocks the tokens are sharded over `tensor` too, and each device
# normalises its own. The constraints are explicit in both directions: otherwise XLA gathers the tokens for each linear
# layer that reads them, and all-reduces each one's gradient.


def _gather_tokens(x_BTD: jax.Array) -> jax.Array:
    return shard(x_BTD, "batch", "length", "width")


def shard_tokens(x_BTD: jax.Array) -> jax.Array:
    """Shards activations as they are between blocks; rows that do not divide (a decoding step) stay gathered."""
    divides = x_BTD.shape[1] % num_shards("tokens") == 0
    return shard(x_BTD, "batch", "tokens", "width") if divides else _gather_tokens(x_BTD)


@jax.custom_vjp
def block_input(x_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The gathered input of a block, twice: for its kernels and for their adapters.

    With sharded heads a kernel's gradient of x is a partial sum. Apart from the adapters' gradients, those of several
    kernels are added locally and reduce-scattered once.
    """
    return (_gather_tokens(x_BTD),) * 2


@jax.custom_vjp
def block_output(y_BTD: jax.Array) -> jax.Array:
    """The output of a block, reduce-scattered over its tokens."""
    return shard_tokens(y_BTD)


block_input.defvjp(lambda x: (block_input(x), None), lambda _, grads: (shard_tokens(grads[0] + grads[1]),))
block_output.defvjp(lambda y: (block_output(y), None), lambda _, grad: (_gather_tokens(grad),))


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Dropout by a hash of each element's index: the mask does not depend on the sharding of x.

    On a TPU, JAX's random bits cost more than the adapters' matmuls, or are computed unsharded on each device.
    The hash is two rounds of "lowbias32" (Wellons 2018).
    """
    bits = jnp.zeros(x.shape, jnp.uint32)  # first the element's index
    for axis, size in enumerate(x.shape):
        bits = bits * jnp.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    for salt in jax.random.bits(key, (2,)):
        bits = bits ^ salt
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
        bits = bits ^ (bits >> 16)
    kept = bits >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


MATMUL = "product"  # what remat "dots" saves, by name: JAX's own policy does not see a dot inside a `custom_vjp`


class Linear(nn.Module):
    """y_…O = x_…I W_IO + scale · dropout(x_…I) A_IR B_RO, plus a bias_O where the model has one.

    W is in the collection `params`, A and B in `lora`; the gradient of one collection is taken. A starts uniform in
    ±sqrt(1 / I) and B at zero, so that a new adapter changes nothing (LoRA, arXiv 2106.09685, section 4.1).

    Attributes:
      features: O.
      axes: the logical names of (I, O), for the sharding table.
      lora: adapter shape, or None.
      bias: whether the layer has one.
      dtype: of the computation; kernels are cast to it.
      param_dtype: of the stored kernel; adapters are stored in float32.
    """

    features: int
    axes: tuple[str, str]
    lora: LoraConfig | None = None
    bias: bool = False
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True, adapted: jax.Array | None = None) -> jax.Array:
        """[…, I] -> […, O]; `deterministic=False` turns the adapter's dropout on (needs the rng `dropout`).

        `adapted`: input of the adapter, from `block_input`; left out, x.
        """
        shape = (x.shape[-1], self.features)
        init = nn.initializers.normal(0.02)  # as LLaMA's
        x = x.astype(self.dtype)
        if self.has_variable("params", "kernel_OI"):  # of `layout.layers_of`
            kernel_OI = self.get_variable("params", "kernel_OI").astype(self.dtype)
            y = jnp.einsum("...i,oi->...o", x, gather(kernel_OI, self.axes[::-1]))
        else:
            if self.has_variable("params", "kernel"):
                kernel = self.get_variable("params", "kernel")  # dense or quantised
            elif self.lora is not None and self.lora.base == "nf4":
                name = ".".join((*self.path, "kernel"))
                make = lambda key, shape: quantised(name, init(key, shape), self.axes, "nf4")
                kernel = self.param("kernel", make, shape)
            else:
                init = nn.with_logical_partitioning(init, self.axes)
                kernel = self.param("kernel", init, shape, self.param_dtype)
            y = matmul(x, kernel, self.axes)
        if self.bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:])
            bias = self.param("bias", zeros, shape[1:], self.param_dtype)
            y = y + jnp.broadcast_to(bias.astype(self.dtype), y.shape)
        if self.lora is None:
            return checkpoint_name(y, MATMUL)
        adapted = x if adapted is None else adapted.astype(self.dtype)
        if self.lora.dropout and not deterministic:
            adapted = dropout(adapted, self.lora.dropout, self.make_rng("dropout"))
        # Both factors are sharded over all axes: with optimizer state they are larger than a quantised base.
        inner, outer = (axis if axis == "embed" else f"adapter_{axis}" for axis in self.axes)
        low = matmul(adapted, self._factor("a", (shape[0], self.lora.rank), (inner, "rank")), (inner, "rank"))
        low = checkpoint_name(self.lora.scale * low, MATMUL)
        low = shard(low, "batch", "length", "rank") if low.ndim == 3 else low
        high = matmul(low, self._factor("b", (self.lora.rank, shape[1]), ("rank", outer)), ("rank", outer))
        return checkpoint_name(y + high, MATMUL)

    def _factor(self, name: str, shape: tuple[int, int], axes: tuple[str, str]) -> jax.Array:
        init = nn.initializers.zeros_init()
        if name == "a":
            init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # bound sqrt(3 · 1/3 / I)
        make = lambda: nn.with_logical_partitioning(init, axes)(self.make_rng("params"), shape, jnp.float32)
        return self.variable("lora", name, make).value
