"""The table between Hugging Face's names and our tree, and what reads and writes by it.

Both directions are strict: a tensor that is missing, unexpected or misshapen is an error; all of them are one error.
Shape letters are `LlamaConfig`'s. A kernel of ours is [in, out], layers stacked on a leading L; theirs is [out, in].
"""

import dataclasses
import functools
import re
from collections.abc import Collection
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig

Index = tuple[slice, ...]

# The linear layers: theirs, ours, and the letters of (in, out).
LINEARS = (
    ("self_attn.q_proj", "attn/q", ("D", "NH")),
    ("self_attn.k_proj", "attn/k", ("D", "KH")),
    ("self_attn.v_proj", "attn/v", ("D", "KH")),
    ("self_attn.o_proj", "attn/o", ("NH", "D")),
    ("mlp.gate_proj", "mlp/gate", ("D", "F")),
    ("mlp.up_proj", "mlp/up", ("D", "F")),
    ("mlp.down_proj", "mlp/down", ("F", "D")),
)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# What old checkpoints carry and every reader computes instead.
_COMPUTED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of ours and where its parts stand in a Hugging Face checkpoint.

    Attributes:
      hf: their name; `{layer}` stands for the layer's number where ours is stacked.
      path: ours, with slashes.
      shape: of ours, without the leading L of a stacked one.
      layers: L of a stacked one, else 0.
      transposed: theirs has its two axes the other way round.
      padding: rows that theirs lacks at its end; zeros in ours.
    """

    hf: str
    path: str
    shape: tuple[int, ...]
    layers: int = 0
    transposed: bool = False
    padding: int = 0

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """Of each of their tensors."""
        rows, *rest = self.shape[::-1] if self.transposed else self.shape
        return (rows - self.padding, *rest)

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Of our array."""
        return (self.layers, *self.shape) if self.layers else self.shape

    @property
    def names(self) -> list[str]:
        """Their names, by layer."""
        return [self.hf.format(layer=i) for i in range(self.layers)] if self.layers else [self.hf]


class Source(Protocol):
    """Tensors under Hugging Face's names, in Hugging Face's orientation, read one at a time.

    `dtype` is what a tensor is stored as; `read` may give a wider type (a sum that is not yet rounded).
    """

    where: str  # for error messages: a file or folder

    def names(self) -> Collection[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def dtype(self, name: str) -> np.dtype: ...
    def read(self, name: str, index: Index) -> np.ndarray: ...


def sizes(config: LlamaConfig) -> dict[str, int]:
    """What each shape letter stands for."""
    return {
        "V": config.vocab_rows,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "NH": config.num_heads * config.head_dim,
        "KH": config.num_kv_heads * config.head_dim,
    }


def table(config: LlamaConfig) -> tuple[Entry, ...]:
    """Every array of a model of that config."""
    size, L = sizes(config), config.num_layers
    V, D = size["V"], size["D"]
    entries = [
        Entry(EMBEDDING, "embed/embedding", (V, D), padding=config.vocab_padding),
        Entry("model.norm.weight", "norm/scale", (D,)),
        Entry("model.layers.{layer}.input_layernorm.weight", "layers/attn_norm/scale", (D,), L),
        Entry("model.layers.{layer}.post_attention_layernorm.weight", "layers/mlp_norm/scale", (D,), L),
    ]
    if not config.tie_embeddings:
        entries.append(Entry(HEAD, "head/kernel", (D, V), transposed=True, padding=config.vocab_padding))
    for hf, path, (inputs, outputs) in LINEARS:
        stem, shape = "model.layers.{layer}." + hf, (size[inputs], size[outputs])
        entries.append(Entry(f"{stem}.weight", f"layers/{path}/kernel", shape, L, transposed=True))
        if config.attention_bias if path.startswith("attn/") else config.mlp_bias:
            entries.append(Entry(f"{stem}.bias", f"layers/{path}/bias", shape[1:], L))
    return tuple(entries)


def load_model(
    source: Source, config: LlamaConfig, dtype: np.dtype | None = None, shardings: Any | None = None
) -> dict[str, Any]:
    """Reads a checkpoint into our tree of `params`; see `load`."""
    check_model(source, config)
    return _load(source, table(config), dtype, shardings)


def check_model(source: Source, config: LlamaConfig) -> None:
    """As `check` by the config's table; a copy of a tied head, and the buffers of old checkpoints, may stand beside.

    Raises:
      UserError: likewise, or a tied head that differs from the embedding.
    """
    beside = {name for name in source.names() if _COMPUTED.fullmatch(name)}
    if config.tie_embeddings and HEAD in source.names():
        if not np.array_equal(whole(source, HEAD), whole(source, EMBEDDING)):
            raise UserError(f"{source.where}: {HEAD} differs from the embedding, though the config ties them")
        beside.add(HEAD)
    check(source, table(config), beside)


def check(source: Source, entries: tuple[Entry, ...], beside: Collection[str] = ()) -> None:
    """Compares what a source has with what is asked for, both ways; names in `beside` may be there.

    Raises:
      UserError: telling of tensors that are missing, unexpected or of another shape.
    """
    found = {name: source.shape(name) for name in source.names() if name not in beside}
    expected = {name: entry.hf_shape for entry in entries for name in entry.names}
    refuse_differences(found, expected, f"the tensors of {source.where}")


def refuse_differences(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], what: str) -> None:
    """Raises a UserError that counts tensors missing, unexpected or of another shape, and names the first of each.

    Args:
      what: whose they are, for the message.
    """
    missing = [f"{name} {list(expected[name])}" for name in expected if name not in found]
    unexpected = [f"{name} {list(found[name])}" for name in found if name not in expected]
    other = [
        f"{name} {list(found[name])}, not {list(expected[name])}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    if told := "; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds.items() if names):
        raise UserError(f"{what} do not fit the config (are they another model's?): {told}")


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(sorted(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def load(
    source: Source, entries: tuple[Entry, ...], dtype: np.dtype | None = None, shardings: Any | None = None
) -> dict[str, Any]:
    """Reads tensors into a tree of ours.

    Args:
      dtype: of every array, or None to keep what is stored (layers of unlike types are promoted to a common one).
      shardings: a tree of shardings like ours. Given, the arrays are jax.Arrays, of which each process reads only the
        slices that its devices hold; left out, they are whole numpy arrays. Either way no more is in memory than the
        result and one tensor.

    Raises:
      UserError: see `check`.
    """
    check(source, entries)
    return _load(source, entries, dtype, shardings)


def _load(source: Source, entries: tuple[Entry, ...], dtype: np.dtype | None, shardings: Any | None) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for entry in entries:
        kind = dtype or jnp.result_type(*{source.dtype(name) for name in entry.names})
        read = functools.partial(read_part, source, entry, kind)
        if shardings is None:
            put(tree, entry.path, read(tuple(slice(0, size) for size in entry.full_shape)))
        else:
            put(tree, entry.path, jax.make_array_from_callback(entry.full_shape, get(shardings, entry.path), read))
    return tree


def read_part(source: Source, entry: Entry, dtype: np.dtype, index: Any) -> np.ndarray:
    """The part `index` of our array, each of their tensors read, turned and cast by itself."""
    ranges = [range(size)[part] for size, part in zip(entry.full_shape, index)]
    layers, within = (ranges[0], ranges[1:]) if entry.layers else (range(1), ranges)
    parts = within[::-1] if entry.transposed else within
    stored = tuple(slice(part.start, min(part.stop, size)) for part, size in zip(parts, entry.hf_shape))
    rows = stored[0].stop - stored[0].start
    out, theirs = np.zeros([len(part) for part in ranges], dtype), entry.names
    if rows <= 0:  # padding alone
        return out
    for array, layer in zip(out if entry.layers else out[None], layers):
        tensor = source.read(theirs[layer], stored)
        _turn(array, entry)[:rows] = cast(tensor, dtype, theirs[layer])
    return out


def _turn(array: np.ndarray, entry: Entry) -> np.ndarray:
    return array.T if entry.transposed else array


class Tree:
    """A tree of ours as a Source under Hugging Face's names: the inverse of `load`.

    Names come array by array, so that whoever reads in their order reads each of arrays that lie on a disk once.

    Raises:
      UserError: arrays of `tree` are missing, unexpected or of another shape.
    """

    def __init__(self, tree: dict[str, Any], entries: tuple[Entry, ...], where: str):
        self.where = where
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        found = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        expected = {entry.path: entry.full_shape for entry in entries}
        shapes = {path: tuple(leaf.shape) for path, leaf in found.items()}
        refuse_differences(shapes, expected, f"the arrays of {where}")
        self._at = {
            name: (entry, found[entry.path], layer) for entry in entries for layer, name in enumerate(entry.names)
        }

    def names(self) -> list[str]:
        return list(self._at)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._at[name][0].hf_shape

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(self._at[name][1].dtype)

    def read(self, name: str, index: Index) -> np.ndarray:
        entry, array, layer = self._at[name]
        one = array[layer] if entry.layers else array
        return _turn(np.asarray(one[index[::-1] if entry.transposed else index]), entry)


def cast(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """The array in another type; a UserError where float16 cannot hold its numbers."""
    with np.errstate(over="ignore"):  # told below, by name
        stored = array.astype(dtype, copy=False)
    if dtype == np.float16 and array.dtype != np.float16 and not np.isfinite(stored).all():
        raise UserError(f"{name} has numbers that float16 cannot hold; take bfloat16 or float32")
    return stored


def whole(source: Source, name: str) -> np.ndarray:
    """All of a tensor."""
    return source.read(name, tuple(slice(0, size) for size in source.shape(name)))


def get(tree: dict[str, Any], path: str) -> Any:
    """What stands at a path with slashes in nested dicts."""
    for key in path.split("/"):
        tree = tree[key]
    return tree


def find(tree: dict[str, Any], path: str) -> Any | None:
    """Likewise, or None where the path leads nowhere."""
    try:
        return get(tree, path)
    except KeyError:
        return None


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Puts a value at a path with slashes, making the dicts on the way."""
    *parents, last = path.split("/")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value
