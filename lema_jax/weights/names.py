"""The table between Hugging Face's tensor names and our tree, and reading by it in both directions.

Missing, unexpected and misshapen tensors are one error. Shapes are `LlamaConfig`'s: our kernels are [in, out], stacked
on a leading L; Hugging Face's are [out, in], one per layer.
"""

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig

Index = tuple[slice, ...]

# The linear layers: Hugging Face's name, ours, and the shape (in, out).
LINEARS = (
    ("self_attn.q_proj", "attn/q", ("D", "NH")),
    ("self_attn.k_proj", "attn/k", ("D", "KH")),
    ("self_attn.v_proj", "attn/v", ("D", "KH")),
    ("self_attn.o_proj", "attn/o", ("NH", "D")),
    ("mlp.gate_proj", "mlp/gate", ("D", "F")),
    ("mlp.up_proj", "mlp/up", ("D", "F")),
    ("mlp.down_proj", "mlp/down", ("F", "D")),
)

# The norms of a layer by `LlamaConfig.norms`: Hugging Face's name and ours.
NORMS = {
    "pre": (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "mlp_norm")),
    "both": (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "attn_post_norm"),
        ("pre_feedforward_layernorm", "mlp_norm"),
        ("post_feedforward_layernorm", "mlp_post_norm"),
    ),
    "post": (("post_attention_layernorm", "attn_post_norm"), ("post_feedforward_layernorm", "mlp_post_norm")),
}

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# A buffer of old checkpoints, which is computed from the config.
_COMPUTED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our arrays and the tensors of a Hugging Face checkpoint that it is made of.

    Attributes:
      hf: Hugging Face's name, with `{layer}` if our array is stacked.
      path: our path, with slashes.
      shape: of our array, without the leading L.
      layers: L of a stacked array, else 0.
      transposed: whether Hugging Face's tensor is the transpose.
      padding: rows of zeros at the end of ours.
    """

    hf: str
    path: str
    shape: tuple[int, ...]
    layers: int = 0
    transposed: bool = False
    padding: int = 0

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """The shape of each Hugging Face tensor."""
        rows, *rest = self.shape[::-1] if self.transposed else self.shape
        return (rows - self.padding, *rest)

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape of our array."""
        return (self.layers, *self.shape) if self.layers else self.shape

    @property
    def names(self) -> list[str]:
        """Hugging Face's names, by layer."""
        return [self.hf.format(layer=i) for i in range(self.layers)] if self.layers else [self.hf]


class Source(Protocol):
    """Tensors by Hugging Face's names and in its orientation, read one at a time.

    `dtype` is the stored type; `read` may return a wider one (an unrounded sum).
    """

    where: str  # the file or folder, for error messages

    def names(self) -> Collection[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def dtype(self, name: str) -> np.dtype: ...
    def read(self, name: str, index: Index) -> np.ndarray: ...


def sizes(config: LlamaConfig) -> dict[str, int]:
    """The size of each shape letter."""
    return {
        "V": config.vocab_rows,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "NH": config.num_heads * config.head_dim,
        "KH": config.num_kv_heads * config.head_dim,
    }


def table(config: LlamaConfig) -> tuple[Entry, ...]:
    """Every array of a model."""
    size, L = sizes(config), config.num_layers
    V, D = size["V"], size["D"]
    entries = [
        Entry(EMBEDDING, "embed/embedding", (V, D), padding=config.vocab_padding),
        Entry("model.norm.weight", "norm/scale", (D,)),
    ]
    for hf, path in NORMS[config.norms]:
        entries.append(Entry(f"model.layers.{{layer}}.{hf}.weight", f"layers/{path}/scale", (D,), L))
    if config.qk_norm != "none":
        for letter, every in (("q", size["NH"]), ("k", size["KH"])):
            width = every if config.qk_norm == "all" else config.head_dim
            hf, path = f"self_attn.{letter}_norm", f"attn/{letter}_norm"
            entries.append(Entry(f"model.layers.{{layer}}.{hf}.weight", f"layers/{path}/scale", (width,), L))
    if not config.tie_embeddings:
        entries.append(Entry(HEAD, "head/kernel", (D, V), transposed=True, padding=config.vocab_padding))
    for hf, path, (inputs, outputs) in LINEARS:
        stem, shape = "model.layers.{layer}." + hf, (size[inputs], size[outputs])
        entries.append(Entry(f"{stem}.weight", f"layers/{path}/kernel", shape, L, transposed=True))
        if has_bias(config, path):
            entries.append(Entry(f"{stem}.bias", f"layers/{path}/bias", shape[1:], L))
    return tuple(entries)


def has_bias(config: LlamaConfig, path: str) -> bool:
    """Whether the linear layer at our path (`attn/q`) has a bias."""
    if path == "attn/o":
        return config.has_output_bias
    return config.attention_bias if path.startswith("attn/") else config.mlp_bias


def load_model(
    source: Source, config: LlamaConfig, dtype: np.dtype | None = None, shardings: Any | None = None
) -> dict[str, Any]:
    """Reads a checkpoint into a tree of `params`, in host memory for the result and one tensor.

    Args:
      dtype: of every array; by default as stored (a common type for layers of different ones).
      shardings: a tree of shardings like the result, whose arrays are then jax.Arrays: each process reads the slices of
        its devices. By default the arrays are numpy's.

    Raises:
      UserError: see `check_model`.
    """
    check_model(source, config)
    placed = {} if shardings is None else traverse_util.flatten_dict(shardings, sep="/")
    arrays: dict[str, Any] = {}
    for entry in table(config):
        stored = dtype or jnp.result_type(*{source.dtype(name) for name in entry.names})
        read = functools.partial(read_part, source, entry, stored)
        if shardings is None:
            arrays[entry.path] = read(tuple(slice(0, size) for size in entry.full_shape))
        else:
            arrays[entry.path] = jax.make_array_from_callback(entry.full_shape, placed[entry.path], read)
    return traverse_util.unflatten_dict(arrays, sep="/")


def check_model(source: Source, config: LlamaConfig) -> None:
    """Compares the tensors of a checkpoint with the config's table, both ways.

    A copy of a tied head, and the buffers of old checkpoints, may be there too.

    Raises:
      UserError: missing or unexpected tensors, other shapes, or a tied head that differs from the embedding.
    """
    ignored = {name for name in source.names() if _COMPUTED.fullmatch(name)}
    if config.tie_embeddings and HEAD in source.names():
        if not np.array_equal(read_whole(source, HEAD), read_whole(source, EMBEDDING)):
            raise UserError(f"{source.where}: {HEAD} differs from the embedding, though the config ties them")
        ignored.add(HEAD)
    found = {name: source.shape(name) for name in source.names() if name not in ignored}
    expected = {name: entry.hf_shape for entry in table(config) for name in entry.names}
    refuse_differences(found, expected, f"the tensors of {source.where}")


def refuse_differences(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], what: str) -> None:
    """Raises a UserError that counts missing, unexpected and misshapen tensors and names the first of each.

    Args:
      what: the tensors' owner, for the message.
    """
    missing = [f"{name} {list(expected[name])}" for name in expected if name not in found]
    unexpected = [f"{name} {list(found[name])}" for name in found if name not in expected]
    other = [
        f"{name} {list(found[name])}, not {list(expected[name])}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    if problems := "; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds.items() if names):
        raise UserError(f"{what} do not fit the config (are they another model's?): {problems}")


def _first(names: list[str], most: int = 3) -> str:
    return ", ".join(sorted(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_part(source: Source, entry: Entry, dtype: np.dtype, index: Any) -> np.ndarray:
    """The slice `index` of our array; its tensors are read, transposed and cast one at a time."""
    ranges = [range(size)[part] for size, part in zip(entry.full_shape, index)]
    layers, within = (ranges[0], ranges[1:]) if entry.layers else (range(1), ranges)
    parts = within[::-1] if entry.transposed else within
    stored = tuple(slice(part.start, min(part.stop, size)) for part, size in zip(parts, entry.hf_shape))
    rows = stored[0].stop - stored[0].start
    out, sources = np.zeros([len(part) for part in ranges], dtype), entry.names
    if rows <= 0:  # only padding
        return out
    for array, layer in zip(out if entry.layers else out[None], layers):
        tensor = source.read(sources[layer], stored)
        _transpose(array, entry)[:rows] = cast(tensor, dtype, sources[layer])
    return out


def _transpose(array: np.ndarray, entry: Entry) -> np.ndarray:
    return array.T if entry.transposed else array


class Tree:
    """Our tree as a Source: the inverse of `load_model`.

    Names are ordered by array, so that reading in order reads arrays on a disk once.

    Raises:
      UserError: missing, unexpected or misshapen arrays.
    """

    def __init__(self, tree: dict[str, Any], entries: tuple[Entry, ...], where: str):
        self.where = where
        found = traverse_util.flatten_dict(tree, sep="/")
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
        return _transpose(np.asarray(one[index[::-1] if entry.transposed else index]), entry)


def cast(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """The array as `dtype`; a UserError if it overflows float16."""
    with np.errstate(over="ignore"):  # reported below, by name
        stored = array.astype(dtype, copy=False)
    if dtype == np.float16 and array.dtype != np.float16 and not np.isfinite(stored).all():
        raise UserError(f"{name} has values that overflow float16; take bfloat16 or float32")
    return stored


def read_whole(source: Source, name: str) -> np.ndarray:
    """An entire tensor."""
    return source.read(name, tuple(slice(0, size) for size in source.shape(name)))


class View:
    """Tensors of other sources under names of their own, as a Source."""

    def __init__(self, where: str, origins: Mapping[str, tuple[Source, str]]):
        self.where = where
        self._origins = origins

    def names(self) -> list[str]:
        return list(self._origins)

    def shape(self, name: str) -> tuple[int, ...]:
        source, own = self._origins[name]
        return source.shape(own)

    def dtype(self, name: str) -> np.dtype:
        source, own = self._origins[name]
        return source.dtype(own)

    def read(self, name: str, index: Index) -> np.ndarray:
        source, own = self._origins[name]
        return source.read(own, index)
