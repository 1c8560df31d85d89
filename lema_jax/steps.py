"""The committed steps of a model folder: `checkpoints/<step>`, each with what says that it is whole.

Orbax commits a step by renaming its folder, or on gs:// by a file in it: it is there whole or not at all. In its
metadata stand a checksum of each array and the identity of the weights; they are compared when it is read.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from lema_jax import digests, storage
from lema_jax.errors import UserError
from lema_jax.metadata import Card, read_card
from lema_jax.model import linear
from lema_jax.parallel import checksum, sharding

_TOGETHER = 2 << 30  # bytes of arrays that are read at a time where they become something else


class DamagedCheckpoint(UserError):
    """Files of a checkpoint that cannot be read."""


def checkpoints(folder: str | Path) -> Path:
    """Where Orbax has a model folder's steps."""
    return storage.place(folder) / "checkpoints"


def steps(folder: str | Path) -> list[int]:
    """The steps that the folder has committed, ascending."""
    there = checkpoints(folder)
    found = [path for path in there.iterdir() if path.name.isdigit()] if there.exists() else []
    committed = lambda path: not storage.is_remote(path) or (path / "commit_success.txt").exists()
    return sorted(int(path.name) for path in found if committed(path))


def latest_step(folder: str | Path) -> int:
    """Raises a UserError when there is none."""
    found = steps(folder)
    if not found:
        read_card(folder)  # says so where it is no model folder at all
        raise UserError(f"{folder} has no checkpoint yet (its folder `checkpoints` is empty)")
    return found[-1]


def seal(card: Card, step: int, items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The metadata to write with a step: whose it is, a checksum of each array, what else is told, a hash of it all."""
    told = {"of": card.identity(step), "checksums": checksum.of(items)} | more
    return told | {"sha256": digests.hashed(told)}


def told(folder: str | Path, step: int, card: Card) -> dict[str, Any]:
    """A step's own metadata, see `seal`; {} where an earlier version wrote none.

    Raises:
      DamagedCheckpoint: it cannot be read, or is not what was written.
    """
    path = checkpoints(folder) / str(step)
    with _damage(path):
        return _told(path, ocp.metadata(path, checkpointable_name="weights").custom_metadata or {}, card)


def restore(folder: str | Path, step: int, abstract: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The named items of a step, arrays into the shapes, shardings and dtypes of `abstract`, and what it says of itself
    beside (see `seal`).

    Raises:
      UserError: no such step, one of another model's, or arrays of other names or shapes than asked for; every
        difference is listed.
      DamagedCheckpoint: its files cannot be read, or do not hold what was written.
    """
    found = open_step(folder, step, abstract)
    return found.load(abstract), found.told


@dataclasses.dataclass(frozen=True)
class Step:
    """A step that is there. `dtypes`: what its arrays are stored as, by name. `told`: its own metadata, see `seal`."""

    path: Path
    dtypes: dict[str, np.dtype]
    told: dict[str, Any]

    def as_stored(self, abstract: Any) -> Any:
        """`abstract` in the dtypes on the disk."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, self.dtypes[_name(path)], sharding=leaf.sharding),
            abstract,
        )

    def load(self, dense: dict[str, Any], wanted: Any = None, quantise: Callable[[Any], Any] | None = None) -> Any:
        """Arrays, compared with their checksums, into what `wanted` says of dtypes and shardings.

        They are read as they are stored, into the shards of the mesh, so many of them at a time that beside the result
        no more than `_TOGETHER` bytes, or one array, are in memory.

        Args:
          dense: the arrays before they are quantised; those of `wanted` where none are.
          quantise: from a dense kernel to a quantised one.
        """
        is_quantised = lambda node: isinstance(node, linear.Quantised)
        loaded = {}
        for item, tree in dense.items():
            leaves, structure = jax.tree.flatten(self.as_stored({item: tree}))
            becomes, made = jax.tree.flatten((wanted or dense)[item], is_leaf=is_quantised)
            changing = [is_quantised(new) or new.dtype != old.dtype for old, new in zip(leaves, becomes)]
            sizes = [math.prod(leaf.shape) * leaf.dtype.itemsize * turns for leaf, turns in zip(leaves, changing)]
            for some in _batches(sizes):
                found = self.read(leaves, structure, some)
                for at, array in zip(some, found):
                    if is_quantised(becomes[at]):
                        assert quantise is not None
                        array = jax.jit(quantise, out_shardings=sharding.of(becomes[at]))(array)
                    elif array.dtype != becomes[at].dtype:
                        cast = lambda array, dtype=becomes[at].dtype: array.astype(dtype)
                        array = jax.jit(cast, out_shardings=becomes[at].sharding)(array)
                    becomes[at] = array
                del found, array
            loaded[item] = jax.tree.unflatten(made, becomes)
        return loaded

    def read(self, leaves: list[Any], structure: Any, some: list[int]) -> list[jax.Array]:
        """Those of an item's arrays, as they are stored; compared with their checksums."""
        alone = [leaf if at in some else ocp.PLACEHOLDER for at, leaf in enumerate(leaves)]
        with _damage(self.path):
            found = jax.tree.leaves(ocp.load_checkpointables(self.path, jax.tree.unflatten(structure, alone)))
        named = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(jax.tree.unflatten(structure, leaves))]
        read = {named[at]: found[at] for at in some}
        if sums := self.told.get("checksums"):
            differing = [name for name, value in checksum.of(read).items() if sums.get(name) != value]
            if differing:
                raise _damaged(self.path, f"{', '.join(differing[:3])} is not what was written: another checksum")
        return list(read.values())


def _batches(sizes: list[int]) -> list[list[int]]:
    """Numbers of arrays to read at a time."""
    batches: list[list[int]] = []
    size = 0
    for at, more in enumerate(sizes):
        if not batches or size + more > _TOGETHER:
            batches.append([])
            size = 0
        batches[-1].append(at)
        size += more
    return batches


def open_step(folder: str | Path, step: int, abstract: dict[str, Any]) -> Step:
    """A step, compared with what is wanted of it; raises as `restore` does."""
    path = checkpoints(folder) / str(step)
    if not path.exists():
        raise UserError(f"{folder} has no checkpoint at step {step}; it has {steps(folder)}")
    card = read_card(folder)
    with _damage(path):
        stored = {name: ocp.metadata(path, checkpointable_name=name) for name in abstract}
        arrays = {name: one.metadata for name, one in stored.items()}
        if None in arrays.values():
            raise ValueError("its metadata cannot be read")
        told = _told(path, stored["weights"].custom_metadata or {}, card)
        found = {_name(where): leaf for where, leaf in jax.tree_util.tree_leaves_with_path(arrays)}
        sums = {name: sum for name, sum in told.get("checksums", {}).items() if name.partition(".")[0] in abstract}
        differing = [name for name, sum in sums.items() if not _is_of(sum, found.get(name))]
        if differing:
            raise ValueError(f"its metadata has another shape for {differing[0]}")
    if told.get("of", card.identity(step)) != card.identity(step):
        raise UserError(
            f"{path} holds {told['of']}, but {folder} is of {card.identity(step)}: it was copied there from elsewhere; "
            "put it back"
        )
    wanted, shapes = _shapes(abstract), _shapes(arrays)
    if wanted != shapes:
        differing = sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
        lines = [f"{n}: {shapes.get(n, 'missing')} where {wanted.get(n, 'nothing')} is expected" for n in differing]
        raise UserError(f"{path} does not fit:\n  " + "\n  ".join(lines))
    return Step(path, {name: np.dtype(leaf.dtype) for name, leaf in found.items()}, told)


def _is_of(sum: str, leaf: Any) -> bool:
    """Whether a checksum is of an array of that shape and dtype."""
    return leaf is not None and sum.startswith(checksum.described(leaf.dtype, leaf.shape))


def _told(path: Path, told: dict[str, Any], card: Card) -> dict[str, Any]:
    """A step's own metadata, compared with the hash in it."""
    unsealed = {name: value for name, value in told.items() if name != "sha256"}
    if "sha256" not in told and not card.sealed:
        digests.warn_once(f"{path.parent} has checkpoints of an earlier version: damage to them is not noticed")
    elif told.get("sha256") != digests.hashed(unsealed):
        raise ValueError("its metadata is not what was written")
    return unsealed


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Orbax raises errors of many kinds for damaged files; here they are one. That memory is short is no damage."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if isinstance(error, MemoryError | PermissionError) or "RESOURCE_EXHAUSTED" in reason:
            raise
        raise _damaged(path, reason) from error


def _damaged(path: Path, reason: str) -> DamagedCheckpoint:
    earlier = [step for step in steps(path.parent.parent) if step < int(path.name)]
    remedy = f"use the one before it, step {earlier[-1]}" if earlier else "there is none before it: make it again"
    return DamagedCheckpoint(f"checkpoint {path} is damaged ({reason}); {remedy}")


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
