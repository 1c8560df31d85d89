"""The one linear layer: a kernel, dense or nf4, and beside it an adapter when the model has one."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from lema_jax.errors import UserError
from lema_jax.model import nf4
from lema_jax.model.config import LoraConfig

# Shapes: I input features, O output features, R adapter rank; `…` any leading axes (B batch, T time).


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
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        """[…, I] -> […, O]; `deterministic=False` turns the adapter's dropout on (needs the rng `dropout`)."""
        shape = (x.shape[-1], self.features)
        init = nn.initializers.normal(0.02)  # as LLaMA's
        x = x.astype(self.dtype)
        if self.lora is not None and self.lora.base == "nf4":
            y = nf4.product(x, self.param("kernel", self._quantised(init), shape))
        else:
            kernel = self.param("kernel", nn.with_logical_partitioning(init, self.axes), shape, self.param_dtype)
            y = x @ kernel.astype(self.dtype)
        if self.bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:])
            bias = self.param("bias", zeros, shape[1:], self.param_dtype)
            y = y + jnp.broadcast_to(bias.astype(self.dtype), y.shape)
        if self.lora is None:
            return y
        a, b = self._adapter(self.lora.rank, shape)
        dropped = nn.Dropout(self.lora.dropout)(x, deterministic=deterministic)
        return y + self.lora.scale * (dropped @ a.astype(self.dtype) @ b.astype(self.dtype))

    def _quantised(self, init: nn.initializers.Initializer) -> Callable[..., nf4.Nf4]:
        name = ".".join(self.path)

        def make(key: jax.Array, shape: tuple[int, int]) -> nf4.Nf4:
            if any(size % nf4.BLOCK for size in shape):
                raise UserError(
                    f"{name}.kernel {list(shape)} cannot be held as nf4, which cuts a kernel in tiles of "
                    f"{nf4.BLOCK} × {nf4.BLOCK}; set lora.base=dense"
                )
            box = lambda names, array: nn.LogicallyPartitioned(array, names)
            is_names = lambda node: isinstance(node, tuple)
            return jax.tree.map(box, nf4.axes(*self.axes), nf4.quantise(init(key, shape)), is_leaf=is_names)

        return make

    def _adapter(self, rank: int, shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
        inputs, outputs = shape
        init_a = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # bound sqrt(3 · 1/3 / I)
        a = self.variable(
            "lora",
            "a",
            lambda: nn.with_logical_partitioning(init_a, (self.axes[0], "rank"))(
                self.make_rng("params"), (inputs, rank), jnp.float32
            ),
        )
        b = self.variable(
            "lora",
            "b",
            lambda: nn.with_logical_partitioning(nn.initializers.zeros_init(), ("rank", self.axes[1]))(
                self.make_rng("params"), (rank, outputs), jnp.float32
            ),
        )
        return a.value, b.value
