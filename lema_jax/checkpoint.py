"""A model on disk: one folder that every later command takes by its name alone.

    folder/model.json             what it is: architecture, adapter, where its frozen base lies, lineage (a `Card`)
    folder/tokenizer/             its tokenizer, in Hugging Face's files
    folder/checkpoints/<step>/    Orbax: `weights` ({params: …} or {lora: …}), and of a trainer `optimizer`

Weights lie stacked over layers, whatever layout they were trained in, and are read straight into the shardings of the
mesh at hand. Orbax commits a step by renaming its folder, or on gs:// by a file in it: it is there whole or not at all.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import pydantic
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.model import layout, linear
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh


class DamagedCheckpoint(UserError):
    """Files of a checkpoint that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Card:
    """`model.json`.

    Attributes:
      config: the architecture.
      lora: shape of the adapters that `weights` holds; None when it holds whole weights.
      base: folder of the frozen base weights, relative to this folder; empty when `weights` is whole.
      lineage: hash of all that shaped the weights but the step: sources, data, configuration.
      base_lineage: the lineage and step that the base had when training began.
      eos_ids: tokens that end an answer, beside the tokenizer's own.
    """

    config: LlamaConfig
    lineage: str
    lora: LoraConfig | None = None
    base: str = ""
    base_lineage: str = ""
    eos_ids: tuple[int, ...] = ()


def lineage(**shaping: Any) -> str:
    """16 hex digits that name weights by everything that shaped them."""
    return hashlib.sha256(json.dumps(shaping, sort_keys=True, default=dataclasses.asdict).encode()).hexdigest()[:16]


def read_card(folder: str | Path) -> Card:
    """The card of a model folder.

    Raises:
      UserError: no such folder, or a card that cannot be read.
    """
    path = storage.place(folder) / "model.json"
    try:
        return pydantic.TypeAdapter(Card).validate_json(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} is no model folder: it has no model.json; make one with convert or train") from None
    except pydantic.ValidationError as error:
        raise UserError(f"{path} is not readable: {error}") from None


def write_card(folder: str | Path, card: Card) -> None:
    """Writes `model.json` in one atomic step."""
    path = storage.place(folder) / "model.json"
    beside = path.with_suffix(".tmp")
    beside.write_bytes(pydantic.TypeAdapter(Card).dump_json(card, indent=2))
    beside.replace(path)


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


def merit(tried: Mapping[str, float]) -> float:
    """What a checkpoint is worth by its trial on dev: greedy accuracy, or where none was measured minus the loss."""
    return tried["accuracy"] if "accuracy" in tried else -tried["loss"]


def best_step(folder: str | Path) -> int:
    """The committed step that did best on dev (`dev.jsonl`; of equals the earliest).

    Raises:
      UserError: the run was not tried on dev.
    """
    path = storage.place(folder) / "dev.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    there = set(steps(folder))
    tried = {line["step"]: line for line in lines if line["step"] in there}
    if not tried:
        raise UserError(f"{folder} has no checkpoint that was tried on dev; train with dev.path, or name a step")
    return max(sorted(tried), key=lambda step: merit(tried[step]))


def identity(folder: str | Path, step: int | None = None) -> str:
    """`lineage@step`: the name that predictions carry, the same wherever the folder lies."""
    return f"{read_card(folder).lineage}@{latest_step(folder) if step is None else step}"


def save_model(folder: str | Path, card: Card, weights: Any, tokenizer: str | Path) -> None:
    """Writes weights as step 0 of a new model folder: beside it first, then renamed.

    Args:
      folder: must not exist; on this disk.
      card: its card.
      weights: the adapters where the card has a shape for them, else whole weights; stacked over layers, any dtype.
        Several processes call this together, each with its shards.
      tokenizer: a folder with the tokenizer's files, copied.

    Raises:
      UserError: `folder` exists, or is one on gs://.
    """
    folder = storage.on_disk(folder)
    if folder.exists():
        raise UserError(f"{folder} exists already; remove it or choose another")
    beside = folder.with_name(folder.name + ".tmp")
    first = jax.process_index() == 0
    if first:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write_card(beside, card)
        shutil.copytree(tokenizer, beside / "tokenizer")
    multihost_utils.sync_global_devices("the folder is there")
    context = ocp.Context()
    # A host may hold them once, not twice: nobody changes them meanwhile, and one array at a time is encoded.
    context.memory.deepcopy_host_arrays = False
    context.memory.write_concurrent_bytes = 1 + max(leaf.nbytes for leaf in jax.tree.leaves(weights))
    with context, ocp.training.Checkpointer(checkpoints(beside)) as checkpointer:
        checkpointer.save_checkpointables(0, {"weights": {"lora" if card.lora else "params": weights}}, force=True)
    if first:
        os.replace(beside, folder)


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array on the disk. Indexing reads it; of all that belong together the one read last stays in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.read()[index]


def stored_weights(folder: str | Path, step: int | None = None) -> tuple[Card, dict[str, Any]]:
    """The variables of a model folder, {params, lora?}, as they lie there: stacked, in the types they are stored as.

    Whole weights are a tree of `Stored`, for models that a host cannot hold; adapters are numpy arrays. Raises as
    `load_weights` does.
    """
    card = read_card(folder)
    base = stored_weights(_base(folder, card))[1] if card.lora else {}
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    name = "lora" if card.lora else "params"
    wanted = {"weights": {name: abstract_variables(Llama(card.config, lora=card.lora), mesh)[name]}}
    path, found = _checked(folder, latest_step(folder) if step is None else step, wanted)
    leaves, tree = jax.tree.flatten(_typed(wanted, found))
    read = functools.lru_cache(maxsize=1)(lambda at: np.asarray(_alone(path, leaves, tree, at)))
    stored = [Stored(leaf.shape, np.dtype(leaf.dtype), functools.partial(read, at)) for at, leaf in enumerate(leaves)]
    arrays = [one.read() for one in stored] if card.lora else stored
    return card, base | jax.tree.unflatten(tree, arrays)["weights"]


def load_weights(
    folder: str | Path,
    mesh: Mesh,
    compute: Compute,
    step: int | None = None,
    lora: LoraConfig | None = None,
    held: str | None = None,
) -> tuple[Card, dict[str, Any]]:
    """The variables of a model folder, {params, lora?}, on the mesh, in the layout and dtype of `compute`.

    A folder with adapters brings its frozen base along, held as they were trained upon. Every process reads only its
    own shards.

    Args:
      lora: adapters that are to stand upon whole weights; they say what kernels are held as.
      held: one of `config.KERNELS`, what kernels are held as in place of that.

    Raises:
      UserError: no such folder or step, a base that is missing or is another than was trained on, or arrays that do
        not have the shapes the card says.
    """
    card = read_card(folder)
    lora = card.lora or lora
    held = held or (lora.base if lora else "dense")
    lora = lora and dataclasses.replace(lora, base="dense")
    variables = _stacked(str(folder), card, mesh, compute, step, lora, held)
    if compute.scan_layers:
        return card, variables
    where = sharding.of(abstract_variables(Llama(card.config, compute, lora), mesh, held))
    return card, jax.jit(layout.unstack_layers, out_shardings={name: where[name] for name in variables})(variables)


def _stacked(
    folder: str, card: Card, mesh: Mesh, compute: Compute, step: int | None, lora: LoraConfig | None, held: str
) -> dict[str, Any]:
    step = latest_step(folder) if step is None else step
    model = Llama(card.config, dataclasses.replace(compute, scan_layers=True), lora)
    if card.lora:
        base = _base(folder, card)
        wanted = {"weights": {"lora": abstract_variables(model, mesh)["lora"]}}
        frozen = _stacked(base, read_card(base), mesh, compute, None, lora, held)
        return frozen | restore(folder, step, wanted)["weights"]
    whole = model.clone(lora=None)
    wanted = {"weights": {"params": abstract_variables(whole, mesh)["params"]}}
    if held == "dense":
        return restore(folder, step, wanted)["weights"]
    return _quantised(folder, step, wanted, {"weights": abstract_variables(whole, mesh, held)}, held)


def _base(folder: str | Path, card: Card) -> str:
    """The folder of the frozen weights that adapters stand upon; refused where it has others by now."""
    base = storage.beside(str(folder), card.base)
    found = identity(base) if (storage.place(base) / "model.json").exists() else "nothing"
    if found != card.base_lineage:
        raise UserError(
            f"{folder} holds adapters of the base weights {card.base_lineage} at {base}, but there is {found}; "
            "put the base back where it was when training began"
        )
    return base


def _quantised(folder: str, step: int, dense: Any, wanted: Any, held: str) -> dict[str, Any]:
    """Weights with quantised kernels, from dense ones on the disk. These are read one stacked array at a time, into the
    shards of the mesh, so that beside the result no more than that one's are in memory."""
    path, stored = _checked(folder, step, dense)
    as_stored = jax.tree.leaves(_typed(dense, stored))
    is_quantised = lambda node: isinstance(node, linear.Quantised)
    leaves, tree = jax.tree.flatten(wanted, is_leaf=is_quantised)
    layer_by_layer = functools.partial(jax.lax.map, linear.FORMS[held].quantise)
    for at, leaf in enumerate(leaves):
        if is_quantised(leaf):
            read = _alone(path, as_stored, tree, at)
            leaves[at] = jax.jit(layer_by_layer, out_shardings=sharding.of(leaf))(read)
        else:
            leaves[at] = _alone(path, leaves, tree, at)
    return jax.tree.unflatten(tree, leaves)["weights"]


def _alone(path: Path, leaves: list[Any], tree: Any, at: int) -> jax.Array:
    """One of a step's arrays, into what the leaf says."""
    others = [ocp.PLACEHOLDER] * len(leaves)
    alone = _load(path, jax.tree.unflatten(tree, [*others[:at], leaves[at], *others[at + 1 :]]))
    return jax.tree.leaves(alone)[at]


def abstract_variables(model: Llama, mesh: Mesh, held: str = "dense") -> Any:
    """Every collection of the model as ShapeDtypeStructs that carry their shardings.

    `held`, one of `config.KERNELS`: what the layers' kernels (not the head) are held as, where not as the model says.
    """
    boxed = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return sharding.abstract(boxed if held == "dense" else boxed | {"params": _held_as(boxed["params"], held)}, mesh)


def _held_as(boxed: Any, held: str) -> Any:
    """Linen's boxes of dense weights with the layers' kernels quantised, each to be cut as the dense one is.

    Raises:
      UserError: a kernel that nf4 cannot hold.
    """

    def one(path: Any, box: Any) -> Any:
        if path[-1].key != "kernel" or not path[0].key.startswith("layers"):
            return box
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return jax.eval_shape(lambda kernel: linear.quantised(name, kernel, box.names, held), box.value)

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda node: isinstance(node, nn.LogicallyPartitioned))


def restore(folder: str | Path, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
    """The named items of a step; arrays into the shapes, shardings and dtypes of `abstract`.

    Raises:
      UserError: no such step, or arrays of other names or shapes than asked for; every difference is listed.
      DamagedCheckpoint: its files cannot be read.
    """
    return _load(_checked(folder, step, abstract)[0], abstract)


def _checked(folder: str | Path, step: int, abstract: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The step's folder, and what is told of its arrays there; raises as `restore` does."""
    path = checkpoints(folder) / str(step)
    if not path.exists():
        raise UserError(f"{folder} has no checkpoint at step {step}; it has {steps(folder)}")
    arrays = {name: tree for name, tree in abstract.items() if name in ("weights", "optimizer")}
    with _damage(path):
        stored = {name: ocp.metadata(path, checkpointable_name=name).metadata for name in arrays}
        if None in stored.values():
            raise ValueError("its metadata cannot be read")
    wanted, found = _shapes(arrays), _shapes(stored)
    if wanted != found:
        differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        lines = [f"{n}: {found.get(n, 'missing')} where {wanted.get(n, 'nothing')} is expected" for n in differing]
        raise UserError(f"{path} does not fit:\n  " + "\n  ".join(lines))
    return path, stored


def _typed(abstract: Any, stored: Any) -> Any:
    """`abstract` in the dtypes on the disk."""
    keep = lambda leaf, on_disk: jax.ShapeDtypeStruct(leaf.shape, on_disk.dtype, sharding=leaf.sharding)
    return jax.tree.map(keep, abstract, stored)


def _load(path: Path, abstract: Any) -> Any:
    with _damage(path):
        return ocp.load_checkpointables(path, abstract)


def place_in_data(folder: str | Path, step: int) -> dict[str, Any]:
    """The state of the data iterator that a trainer saved with the step.

    Raises:
      DamagedCheckpoint: its files cannot be read.
    """
    path = checkpoints(folder) / str(step)
    with _damage(path):
        return ocp.metadata(path, checkpointable_name="weights").custom_metadata["data"]


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Orbax raises errors of many kinds for damaged files; here they are one."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise DamagedCheckpoint(f"checkpoint {path} is damaged ({reason}); use the one before it") from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
