"""Memory of a chip: the largest arrays by name, and the compiler's out-of-memory errors, parsed."""

import dataclasses
import math
import re
from typing import Any

import jax
from jax.sharding import NamedSharding

_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([BKMGT])"


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One allocation on a chip: the name of the array or its operation, bytes, and dtype with the shard's shape."""

    name: str
    bytes: float
    shape: str


class OutOfMemory(Exception):
    """A program does not fit on its chip: bytes needed and available, and the largest buffers.

    The list is empty where the compiler stops early because temporaries alone do not fit.
    """

    def __init__(self, wanted: float, limit: float, buffers: list[Buffer]):
        super().__init__(f"needs {wanted / 1e9:.2f} GB of the chip's {limit / 1e9:.2f} GB of HBM")
        self.wanted, self.limit, self.buffers = wanted, limit, buffers


def largest(tree: Any, count: int) -> list[Buffer]:
    """The largest arrays of an abstract tree, by their shard on a chip."""

    def one(path: Any, leaf: jax.ShapeDtypeStruct) -> Buffer:
        shape = leaf.shape
        if isinstance(leaf.sharding, NamedSharding):
            shape = leaf.sharding.shard_shape(shape)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return Buffer(name, math.prod(shape) * leaf.dtype.itemsize, f"{leaf.dtype}{list(shape)}".replace(" ", ""))

    buffers = [one(*leaf) for leaf in jax.tree_util.tree_leaves_with_path(tree)]
    return sorted(buffers, key=lambda buffer: -buffer.bytes)[:count]


def out_of_memory(message: str) -> OutOfMemory | None:
    """The shortage in a compiler's error message; None for other errors."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    totals = re.search(rf"Used {_SIZE} of {_SIZE} hbm", message) or re.search(
        rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)", message
    )
    if totals is None:
        return None
    buffers = []
    for entry in re.split(r"\n\s*\d+\. (?=Size: )", message)[1:]:
        size, shape = re.search(rf"Size: {_SIZE}", entry), re.search(r"Shape: (\S+?)(?:\{|\s)", entry)
        operation = re.search(r'op_name="([^"]*)"', entry) or re.search(r"XLA label: (\S+)", entry)
        if size and shape:
            name = operation.group(1) if operation else "unnamed"
            buffers.append(Buffer(name, _bytes(*size.groups()), shape.group(1)))
    return OutOfMemory(_bytes(*totals.groups()[:2]), _bytes(*totals.groups()[2:]), buffers)


def _bytes(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit]
