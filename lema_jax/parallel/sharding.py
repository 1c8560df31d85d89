"""The table of logical axes to mesh axes, and shardings by it.

An unknown name or an indivisible dimension is an error that names the array: nothing is silently replicated.
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
    ("adapter_heads", ("tensor", "fsdp")),  # the wide side of an adapter's factor, if it is not `embed`
    ("adapter_kv_heads", ("tensor", "fsdp")),
    ("adapter_mlp", ("tensor", "fsdp")),
    ("norm", None),
    ("block", None),  # codes within an nf4 block; the other axes are the dense kernel's, in tiles
    # activations ("heads", "kv_heads" and "mlp" as above)
    ("batch", ("data", "fsdp")),
    ("length", "sequence"),
    ("tokens", ("sequence", "tensor")),  # `length` between blocks: sequence parallelism
    ("keys", None),  # every device attends to all tokens of its rows
    ("width", None),  # the model width of an activation
    ("head_dim", None),
    ("pieces", ("sequence", "data", "fsdp")),  # shards of the sequence as rows of their own, for the loss
)

BATCH = PartitionSpec(("data", "fsdp"))  # [B, …]
TOKENS = PartitionSpec(("data", "fsdp"), "sequence")  # [B, T]


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[None]:
    """Inside, the model's logical axis names are constraints on `mesh`."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def abstract(boxed: Any, mesh: Mesh) -> Any:
    """Abstract arrays with shardings, for a tree of Linen's boxes (`jax.eval_shape(model.init, …)`).

    A leaf without a box must be a scalar (a step counter, an optimizer's count); it is replicated.

    Raises:
      UserError: axis names without a rule, indivisible dimensions and unnamed arrays, all listed.
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
            "cannot shard the model over the mesh; choose axes that divide its arrays:\n  " + "\n  ".join(problems)
        )
    return tree


def of(tree: Any) -> Any:
    """The shardings of a tree of arrays or abstract arrays."""
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
