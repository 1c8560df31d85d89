"""The one linear layer: a kernel, dense or quantised, and beside it an adapter when the model has one."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lema_jax.model import int8, nf4
from lema_jax.model.config import LoraConfig
from lema_jax.model.int8 import Int8
from lema_jax.model.nf4 import Nf4

# Shapes: I input features, O output features, R adapter rank; `…` any leading axes (B batch, T time).


def shard(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins an array to its logical axes under a mesh; without one, nothing. An unknown name is an error."""
    return nn.with_logical_constraint(x, axes, fallback=nn.spmd.RulesFallback.RAISE_ERROR)


# How an axis of a kernel lies while the kernel is used, where that is not how it is kept.
_AT_USE = {"embed": "width", "adapter_heads": "heads", "adapter_kv_heads": "kv_heads", "adapter_mlp": "mlp"}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def whole(kernel: jax.Array, axes: tuple[str, str]) -> jax.Array:
    """A kernel gathered along what `fsdp` cuts, as it is at use; its gradient is cut as the kernel is.

    Said aloud, since the compiler otherwise cuts each product into a chain of small ones, and sums gradients whole.
    """
    return shard(kernel, *(_AT_USE.get(axis, axis) for axis in axes))


whole.defvjp(lambda kernel, axes: (whole(kernel, axes), None), lambda axes, _, gradient: (shard(gradient, *axes),))


FORMS: dict[str, Any] = {"nf4": nf4, "int8": int8}  # what a kernel can be held as, but dense
Quantised = Nf4 | Int8
Kernel = jax.Array | Quantised


def quantised(name: str, kernel: jax.Array, axes: Sequence[str], held: str) -> Any:
    """A dense kernel [… I, O] in one of `FORMS`, each part in Linen's box with the axes that it has of the kernel's.

    Raises:
      UserError: a kernel, called `name`, that nf4 cannot hold.
    """
    if held == "nf4":
        nf4.check(name, kernel.shape[-2:])
    *leading, inputs, outputs = axes
    box = lambda names, part: nn.LogicallyPartitioned(part, (*leading, *names))
    return jax.tree.map(box, FORMS[held].axes(inputs, outputs), FORMS[held].quantise(kernel), is_leaf=_is_names)


def dense(kernel: Kernel, axes: tuple[str, str], dtype: jnp.dtype) -> jax.Array:
    """The kernel [I, O] as it is at use. What is gathered of a quantised one are its codes: fewer bytes."""
    if not isinstance(kernel, Quantised):
        return whole(kernel.astype(dtype), axes)
    form = FORMS["nf4" if isinstance(kernel, Nf4) else "int8"]
    gathered = jax.tree.map(lambda names, part: whole(part, names), form.axes(*axes), kernel, is_leaf=_is_names)
    return form.dequantise(gathered, dtype)


def _is_names(node: Any) -> bool:
    return isinstance(node, tuple)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, kernel: Kernel, axes: tuple[str, str]) -> jax.Array:
    """x [… I] @ kernel [I, O] -> [… O] in x's dtype. For the backward pass the kernel is kept as it lies: cut, and
    quantised, of which the dense form lives for a product alone. A quantised kernel has no gradient."""
    if isinstance(kernel, Quantised):
        x, kernel = jax.lax.optimization_barrier((x, kernel))  # so that none is made before its turn, or for good
    return x @ dense(kernel, axes, x.dtype)


def _product_forward(x, kernel, axes):
    return product(x, kernel, axes), (None if isinstance(kernel, Quantised) else x, kernel)


def _product_backward(axes, saved, gradient):
    x, kernel = saved
    if isinstance(kernel, Quantised):
        gradient, kernel = jax.lax.optimization_barrier((gradient, kernel))  # so that the forward pass's is not kept
        return gradient @ dense(kernel, axes, gradient.dtype).T, None
    kernel_gradient = shard(jnp.einsum("...i,...o->io", x, gradient), *axes)
    return gradient @ dense(kernel, axes, x.dtype).T, kernel_gradient.astype(kernel.dtype)


product.defvjp(_product_forward, _product_backward)


def cuts(axis: str) -> int:
    """How many parts the mesh cuts a logical axis into."""
    (over,) = nn.logical_to_mesh_axes((axis,)) or (None,)
    axes = () if over is None else (over,) if isinstance(over, str) else over
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)


# Between the blocks of a layer an activation's tokens are cut over the heads' devices too, so that each keeps and norms
# its part alone. Where they are gathered and summed is said here, both ways: the compiler would gather anew for each
# layer that reads them, and sum each one's gradient.


def _whole(x_BTD: jax.Array) -> jax.Array:
    return shard(x_BTD, "batch", "length", "width")


def between(x_BTD: jax.Array) -> jax.Array:
    """As activations lie between blocks; rows too short for that (one token at a time) lie whole."""
    return shard(x_BTD, "batch", "tokens", "width") if x_BTD.shape[1] % cuts("tokens") == 0 else _whole(x_BTD)


@jax.custom_vjp
def enter(x_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The input of a block, gathered: x for its kernels, and x for their adapters.

    Where heads are cut, a kernel's gradient of x is a partial sum. Kept apart from those of the adapters, which would
    stand between them, those of several kernels are added up first and then summed over the mesh once.
    """
    return (_whole(x_BTD),) * 2


@jax.custom_vjp
def leave(y_BTD: jax.Array) -> jax.Array:
    """The output of a block, summed over the mesh and cut."""
    return between(y_BTD)


enter.defvjp(lambda x: (enter(x), None), lambda _, gradients: (between(gradients[0] + gradients[1]),))
leave.defvjp(lambda y: (leave(y), None), lambda _, gradient: (_whole(gradient),))


def drop(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Dropout by a hash of each element's place, the same however x is cut over a mesh.

    JAX's own random bits would cost a TPU more than the products that they go with, or are made whole on each device.
    The hash is two rounds of a mixing function for 32 bits ("lowbias32", Wellons 2018).
    """
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    for salt in jax.random.bits(key, (2,)):
        place = place ^ salt
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            place = (place ^ (place >> shift)) * jnp.uint32(factor)
        place = place ^ (place >> 16)
    kept = place >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))


PRODUCT = "product"  # the name by which remat "dots" keeps what layers make; their own `vjp` hides products from it


class Linear(nn.Module):
    """y_…O = x_…I W_IO + scale · dropout(x_…I) A_IR B_RO, plus a bias_O where the model has one.

    W is in the collection `params`, A and B in `lora`: what is trained is nothing but the collection whose gradient is
    taken. A starts uniform in ±sqrt(1 / I), B at zero, so a fresh adapter changes nothing (LoRA, section 4.1).

    Attributes:
      features: O.
      axes: the logical names of (I, O), for the sharding table.
      lora: adapter shape, or None for none.
      bias: whether there is one.
      dtype: of the computation; kernels are cast to it at use.
      param_dtype: of the stored kernel (adapters are always stored in float32).
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

        `adapted`: what the adapter reads, where `enter` made it.
        """
        shape = (x.shape[-1], self.features)
        init = nn.initializers.normal(0.02)  # as LLaMA's
        x = x.astype(self.dtype)
        if self.has_variable("params", "kernel_OI"):  # as `layout.turn_kernels` lays it
            kernel_OI = self.get_variable("params", "kernel_OI").astype(self.dtype)
            y = jnp.einsum("...i,oi->...o", x, whole(kernel_OI, self.axes[::-1]))
        else:
            if self.has_variable("params", "kernel"):
                kernel = self.get_variable("params", "kernel")  # whatever it is held as
            elif self.lora is not None and self.lora.base == "nf4":
                name = ".".join((*self.path, "kernel"))
                make = lambda key, shape: quantised(name, init(key, shape), self.axes, "nf4")
                kernel = self.param("kernel", make, shape)
            else:
                init = nn.with_logical_partitioning(init, self.axes)
                kernel = self.param("kernel", init, shape, self.param_dtype)
            y = product(x, kernel, self.axes)
        if self.bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:])
            bias = self.param("bias", zeros, shape[1:], self.param_dtype)
            y = y + jnp.broadcast_to(bias.astype(self.dtype), y.shape)
        if self.lora is None:
            return checkpoint_name(y, PRODUCT)
        read = x if adapted is None else adapted.astype(self.dtype)
        if self.lora.dropout and not deterministic:
            read = drop(read, self.lora.dropout, self.make_rng("dropout"))
        # Both factors are cut over the whole mesh: with their optimizer state they outweigh a quantised base.
        inner, outer = (axis if axis == "embed" else f"adapter_{axis}" for axis in self.axes)
        low = product(read, self._factor("a", (shape[0], self.lora.rank), (inner, "rank")), (inner, "rank"))
        low = checkpoint_name(self.lora.scale * low, PRODUCT)
        low = shard(low, "batch", "length", "rank") if low.ndim == 3 else low
        high = product(low, self._factor("b", (self.lora.rank, shape[1]), ("rank", outer)), ("rank", outer))
        return checkpoint_name(y + high, PRODUCT)

    def _factor(self, name: str, shape: tuple[int, int], axes: tuple[str, str]) -> jax.Array:
        init = nn.initializers.zeros_init()
        if name == "a":
            init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # bound sqrt(3 · 1/3 / I)
        make = lambda: nn.with_logical_partitioning(init, axes)(self.make_rng("params"), shape, jnp.float32)
        return self.variable("lora", name, make).value
