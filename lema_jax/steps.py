"""The committed steps of a model folder, `checkpoints/<step>`, and the checks of what is read from them.

Orbax commits a step atomically: by renaming its folder, or on gs:// by a file in it. Its record (Orbax's custom
metadata) contains a checksum of each array and the identity of the weights; both are compared on reading.
"""

import contextlib
import dataclasses
import gc
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from lema_jax import digests, disk
from lema_jax.errors import UserError
from lema_jax.metadata import Metadata
from lema_jax.model import linear
from lema_jax.parallel import checksum, sharding
from lema_jax.storage import AnyFolder, RunFolder

_TOGETHER = 2 << 30  # bytes of arrays that are read at a time where they are cast or quantised
_SMALL = 64 << 20  # and where all of them are rearranged


class DamagedCheckpoint(UserError):
    """Files of a checkpoint that cannot be read."""


def checkpoints(folder: AnyFolder) -> Path:
    """Where Orbax stores a model folder's steps."""
    return RunFolder(folder).path / "checkpoints"


def steps(folder: AnyFolder) -> list[int]:
    """The committed steps, ascending."""
    there = checkpoints(folder)
    found = [path for path in there.iterdir() if path.name.isdigit()] if there.exists() else []
    committed = lambda path: not RunFolder(folder).is_remote or (path / "commit_success.txt").exists()
    return sorted(int(path.name) for path in found if committed(path))


def last_step(folder: AnyFolder) -> int:
    """The last committed step of a model folder.

    Raises:
      UserError: there is none.
    """
    found = steps(folder)
    if not found:
        raise UserError(f"{folder} has no checkpoint yet (its folder `checkpoints` is empty)")
    return found[-1]


def seal(metadata: Metadata, step: int, items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The record to store with a step: identity of the weights, a checksum of each array, `more`, a hash of it all."""
    record = {"of": metadata.identity_at(step), "checksums": checksum.of(items)} | more
    return record | {"sha256": digests.hashed(record)}


def read_record(folder: AnyFolder, step: int, metadata: Metadata) -> dict[str, Any]:
    """A step's record, see `seal`; {} where an earlier version stored none.

    Raises:
      DamagedCheckpoint: it cannot be read, or is not what was stored.
    """
    path = checkpoints(folder) / str(step)
    with _damage(path):
        return _checked(path, ocp.metadata(path, checkpointable_name="weights").custom_metadata or {}, metadata)


@dataclasses.dataclass(frozen=True)
class Step:
    """A committed step.

    Attributes:
      path: its folder.
      dtypes: the stored dtype of each array, by name.
      record: see `seal`.
    """

    path: Path
    dtypes: dict[str, np.dtype]
    record: dict[str, Any]

    def as_stored(self, abstract: Any) -> Any:
        """`abstract` in the stored dtypes."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, self.dtypes[_name(path)], sharding=leaf.sharding),
            abstract,
        )

    def load(
        self,
        dense: dict[str, Any],
        wanted: Any = None,
        quantise: Callable[[Any], Any] | None = None,
        arrange: Callable[[tuple[str, ...], Any], Any] | None = None,
    ) -> Any:
        """Reads arrays in the dtypes and shardings of `wanted`, and compares them with their checksums.

        Arrays are read in their stored dtypes, straight into the shards of the mesh, in batches: beside the result no
        more than `_TOGETHER` bytes, or one array, are in memory. Where all of them are rearranged, the largest are
        read first, while the result is small, and of the others `_SMALL` bytes at a time.

        Args:
          dense: the abstract arrays before quantisation.
          wanted: the abstract result; `dense` by default.
          quantise: from a dense kernel to a quantised one.
          arrange: from an array, with its names in the tree, to what the result has in its place.
        """
        is_quantised = lambda node: isinstance(node, linear.Quantised)
        loaded = {}
        for item, tree in dense.items():
            leaves, structure = jax.tree.flatten(self.as_stored({item: tree}))
            becomes, made = jax.tree.flatten((wanted or dense)[item], is_leaf=is_quantised)
            changing = [is_quantised(new) or new.dtype != old.dtype for old, new in zip(leaves, becomes)]
            turns = [one or arrange is not None for one in changing]
            sizes = [math.prod(leaf.shape) * leaf.dtype.itemsize * turn for leaf, turn in zip(leaves, turns)]
            paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
            order, most = list(range(len(sizes))), _TOGETHER
            if arrange is not None:
                order, most = sorted(order, key=lambda at: -sizes[at]), _SMALL
            for some in _batches(order, sizes, most):
                found = self.read(leaves, structure, some)
                while some:
                    at, array = some.pop(), found.pop()
                    if is_quantised(becomes[at]):
                        assert quantise is not None
                        array = jax.jit(quantise, out_shardings=sharding.of(becomes[at]))(array)
                    elif array.dtype != becomes[at].dtype:
                        cast = lambda array, dtype=becomes[at].dtype: array.astype(dtype)
                        array = jax.jit(cast, out_shardings=becomes[at].sharding)(array)
                    becomes[at] = array if arrange is None else arrange(tuple(key.key for key in paths[at]), array)
                    del array
            loaded[item] = jax.tree.unflatten(made, becomes)
        return loaded

    def read(self, leaves: list[Any], structure: Any, some: list[int]) -> list[jax.Array]:
        """Reads arrays `some` of an item in their stored dtypes, and compares them with their checksums."""
        alone = [leaf if at in some else ocp.PLACEHOLDER for at, leaf in enumerate(leaves)]
        with _damage(self.path):
            found = jax.tree.leaves(ocp.load_checkpointables(self.path, jax.tree.unflatten(structure, alone)))
        if sum(found[at].nbytes for at in some) > _SMALL:
            gc.collect()  # Orbax leaves its own copy of what it read in a cycle of references
        named = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(jax.tree.unflatten(structure, leaves))]
        read = {named[at]: found[at] for at in some}
        if sums := self.record.get("checksums"):
            differing = [name for name, value in checksum.of(read).items() if sums.get(name) != value]
            if differing:
                raise _damaged(self.path, f"{', '.join(differing[:3])} is not what was written: another checksum")
        return list(read.values())


def _batches(order: list[int], sizes: list[int], most: int) -> list[list[int]]:
    """Groups of arrays, by number, to read at a time: of `most` bytes, or of one array."""
    batches: list[list[int]] = []
    size = 0
    for at in order:
        if not batches or size + sizes[at] > most:
            batches.append([])
            size = 0
        batches[-1].append(at)
        size += sizes[at]
    return batches


def open_step(folder: AnyFolder, step: int, metadata: Metadata, abstract: dict[str, Any]) -> Step:
    """Opens a step, and compares it with the abstract items that shall be read.

    Args:
      metadata: the model folder's.
      abstract: by item, arrays with shapes, dtypes and shardings.

    Raises:
      UserError: no such step, one of another model, or arrays of other names or shapes; differences are named.
      DamagedCheckpoint: its files cannot be read, or are not what was written.
    """
    path = checkpoints(folder) / str(step)
    if not path.exists():
        raise UserError(f"{folder} has no checkpoint at step {step}; it has {steps(folder)}")
    with _damage(path):
        stored = {name: ocp.metadata(path, checkpointable_name=name) for name in abstract}
        arrays = {name: one.metadata for name, one in stored.items()}
        if None in arrays.values():
            raise ValueError("its metadata cannot be read")
        record = _checked(path, stored["weights"].custom_metadata or {}, metadata)
        found = {_name(where): leaf for where, leaf in jax.tree_util.tree_leaves_with_path(arrays)}
        sums = {name: sum for name, sum in record.get("checksums", {}).items() if name.partition(".")[0] in abstract}
        differing = [name for name, sum in sums.items() if not _is_of(sum, found.get(name))]
        if differing:
            raise ValueError(f"its metadata has another shape for {differing[0]}")
    if record.get("of", metadata.identity_at(step)) != metadata.identity_at(step):
        raise UserError(
            f"{path} holds {record['of']}, but {folder} is of {metadata.identity_at(step)}: it was copied there from "
            "elsewhere; put it back"
        )
    wanted, shapes = _shapes(abstract), _shapes(arrays)
    if wanted != shapes:
        differing = sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
        some = [f"{n}: {shapes.get(n, 'missing')} where {wanted.get(n, 'nothing')} is expected" for n in differing[:3]]
        more = f"; and {len(differing) - 3} others" if len(differing) > 3 else ""
        raise UserError(f"{path} does not fit: {'; '.join(some)}{more}")
    return Step(path, {name: np.dtype(leaf.dtype) for name, leaf in found.items()}, record)


def _is_of(sum: str, leaf: Any) -> bool:
    """Whether a checksum names the shape and dtype of `leaf`."""
    return leaf is not None and sum.startswith(checksum.described(leaf.dtype, leaf.shape))


def _checked(path: Path, record: dict[str, Any], metadata: Metadata) -> dict[str, Any]:
    """A step's record, compared with its own hash."""
    unsealed = {name: value for name, value in record.items() if name != "sha256"}
    if "sha256" not in record and not metadata.sealed:
        digests.warn_once(f"{path.parent} has checkpoints of an earlier version: damage to them is not noticed")
    elif record.get("sha256") != digests.hashed(unsealed):
        raise ValueError("its metadata is not what was written")
    return unsealed


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns Orbax's many errors for damaged files into one; a full disk or too little memory is no damage."""
    try:
        yield
    except Exception as error:
        if disk.hinders(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise _damaged(path, reason) from error


def _damaged(path: Path, reason: str) -> DamagedCheckpoint:
    earlier = [step for step in steps(path.parent.parent) if step < int(path.name)]
    remedy = f"use the one before it, step {earlier[-1]}" if earlier else "remove the folder, and make it again"
    return DamagedCheckpoint(f"checkpoint {path} is damaged ({reason}); {remedy}")


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
