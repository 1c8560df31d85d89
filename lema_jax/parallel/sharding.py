"""The one table that says where an axis goes, and the shardings that follow from it.

The model says what an axis means (a logical name); the table says which mesh axis it is cut along. An unknown name or a
dimension that does not divide is an error that names the array: nothing is silently replicated.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lema_jax.errors import UserError

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    # weights
    ("layers", None),
    ("vocab", "tensor"),
    ("embed", "fsdp"),  # the model width of a kernel
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("rank", None),
    ("adapter_heads", ("tensor", "fsdp")),  # the wide side of an adapter's factor where it is not `embed`
    ("adapter_kv_heads", ("tensor", "fsdp")),
    ("adapter_mlp", ("tensor", "fsdp")),
    ("norm", None),
    ("block", None),  # the codes of an nf4 kernel's block; its other axes are the dense kernel's, in blocks
    # activations ("heads", "kv_heads" and "mlp" as above)
    ("batch", ("data", "fsdp")),
    ("length", "sequence"),
    ("tokens", ("sequence", "tensor")),  # the same between the blocks of a layer
    ("keys", None),  # the tokens that attention looks at: all of them, on every device
    ("width", None),  # the model width of an activation
    ("head_dim", None),
    ("pieces", ("sequence", "data", "fsdp")),  # rows cut along the sequence into rows of their own
)

BATCH = PartitionSpec(("data", "fsdp"))  # rows of anything that has a row an example
TOKENS = PartitionSpec(("data", "fsdp"), "sequence")  # [B, T]


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[None]:
    """Inside, the model's logical constraints take effect on `mesh`."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def abstract(boxed: Any, mesh: Mesh) -> Any:
    """The arrays that a tree of Linen's boxes (`jax.eval_shape(model.init, …)`) stands for: shape, dtype and sharding.

    A leaf without a box (a step counter, an optimizer's count) is a scalar and lies on every device.

    Raises:
      UserError: an axis name without a rule, a dimension that does not divide by its mesh axis, or an unnamed array;
        every such array is listed.
    """
    problems: list[str] = []

    def one(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        spec = PartitionSpec()
        if _is_boxed(leaf):
            spec, leaf = _spec(name, leaf, mesh, problems), leaf.value
        elif leaf.ndim:
            problems.append(f"{name}: shape {leaf.shape} has no axis names")
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    tree = jax.tree_util.tree_map_with_path(one, boxed, is_leaf=_is_boxed)
    if problems:
        raise UserError(
            "cannot lay the model out on the mesh; choose axes that divide its arrays:\n  " + "\n  ".join(problems)
        )
    return tree


def of(tree: Any) -> Any:
    """The shardings of a tree of arrays, abstract or not."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def _is_boxed(leaf: Any) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def _spec(name: str, leaf: nn.LogicallyPartitioned, mesh: Mesh, problems: list[str]) -> PartitionSpec:
    table = dict(RULES)
    spec = []
    for axis, size in zip(leaf.names, leaf.value.shape, strict=True):
        if axis not in table:
            problems.append(f"{name}: axis {axis!r} has no rule; add it to parallel.sharding.RULES")
            return PartitionSpec()
        where = table[axis]
        over = (where,) if isinstance(where, str) else where or ()
        parts = math.prod(mesh.shape[part] for part in over)
        if size % parts:
            problems.append(f"{name}: {axis}={size} does not divide by mesh axis {'×'.join(over)}={parts}")
        spec.append(where)
    return PartitionSpec(*spec)
