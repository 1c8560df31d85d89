"""A model on disk: one folder that every later command takes by its name alone.

    folder/model.json             what it is: architecture, adapter, where its frozen base lies (see `metadata`)
    folder/tokenizer/             its tokenizer, in Hugging Face's files
    folder/checkpoints/<step>/    Orbax: `weights` ({params: …} or {lora: …}), and of a trainer `optimizer`; see `steps`

Weights lie stacked over layers, whatever layout they were trained in, and are read straight into the shardings of the
mesh at hand.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from lema_jax import metadata, storage
from lema_jax.errors import UserError
from lema_jax.metadata import Card, read_card, write_card
from lema_jax.metadata import lineage as lineage  # for those who make a card
from lema_jax.model import layout, linear
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.steps import DamagedCheckpoint, checkpoints, latest_step, open_step, restore, seal, steps, told


def merit(tried: Mapping[str, Any]) -> float:
    """What a checkpoint is worth by its trial on dev: greedy accuracy, or where none was measured minus the loss."""
    return tried["accuracy"] if "accuracy" in tried else -tried["loss"]


def trials(folder: str | Path) -> dict[int, dict[str, Any]]:
    """How each committed step did on dev: {loss, accuracy?, on}, as the step itself says.

    Those of earlier versions say nothing: it is taken from `dev.jsonl`.
    """
    card, found = read_card(folder), {}
    log = {line["step"]: line for line in storage.read_log(storage.place(folder) / "dev.jsonl")}
    for step in steps(folder):
        with contextlib.suppress(DamagedCheckpoint):  # said where its weights are wanted
            tried = told(folder, step, card).get("tried", log.get(step))
            if tried and ("loss" in tried or "accuracy" in tried):
                found[step] = tried
    return found


def best_of(tried: Mapping[int, Mapping[str, Any]], on: str | None) -> int | None:
    """The step that did best (of equals the earliest) of those tried `on` the same questions; None where none was."""
    same = sorted(step for step in tried if tried[step].get("on") == on)
    return max(same, key=lambda step: merit(tried[step])) if same else None


def best_step(folder: str | Path) -> int:
    """The committed step that did best on dev, of those that were tried on what the last one was tried on.

    Raises:
      UserError: the run was not tried on dev.
    """
    tried = trials(folder)
    best = best_of(tried, tried[max(tried)].get("on")) if tried else None
    if best is None:
        raise UserError(f"{folder} has no checkpoint that was tried on dev; train with dev.path, or name a step")
    return best


def identity(folder: str | Path, step: int | None = None) -> str:
    """`lineage@step`: the name that predictions carry, the same wherever the folder lies."""
    return read_card(folder).identity(latest_step(folder) if step is None else step)


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
    first = jax.process_index() == 0
    items = {"weights": {"lora" if card.lora else "params": weights}}
    with storage.new_folder(folder, makes=first) as beside:
        if first:
            storage.copy_files(tokenizer, beside / "tokenizer")
            write_card(beside, dataclasses.replace(card, tokenizer=metadata.tokenizer_digests(tokenizer)))
        multihost_utils.sync_global_devices("the folder is there")
        context = ocp.Context()
        # A host may hold them once, not twice: nobody changes them meanwhile, and one array at a time is encoded.
        context.memory.deepcopy_host_arrays = False
        context.memory.write_concurrent_bytes = 1 + max(leaf.nbytes for leaf in jax.tree.leaves(weights))
        with context, ocp.training.Checkpointer(checkpoints(beside)) as checkpointer:
            checkpointer.save_checkpointables(0, items, force=True, custom_metadata=seal(card, 0, items))


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
    found = open_step(folder, latest_step(folder) if step is None else step, wanted)
    metadata.check_tokenizer(folder, card)
    leaves, tree = jax.tree.flatten(found.as_stored(wanted))
    read = functools.lru_cache(maxsize=1)(lambda at: np.asarray(found.read(leaves, tree, [at])[0]))
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
    metadata.check_tokenizer(folder, card)
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
        return frozen | restore(folder, step, wanted)[0]["weights"]
    whole = model.clone(lora=None)
    dense = {"params": abstract_variables(whole, mesh)["params"]}
    found = open_step(folder, step, {"weights": dense})
    if held == "dense":
        return found.load({"weights": dense})["weights"]
    quantise = functools.partial(jax.lax.map, linear.FORMATS[held].quantise)
    return found.load(
        {"weights": dense}, {"weights": {"params": abstract_variables(whole, mesh, held)["params"]}}, quantise
    )["weights"]


def _base(folder: str | Path, card: Card) -> str:
    """The folder of the frozen weights that adapters stand upon; refused where it has others by now."""
    base = storage.beside(str(folder), card.base)
    require_base(folder, card, base)
    return base


def require_base(folder: str | Path, card: Card, base: str | Path) -> None:
    """Refuses weights that are not those which a folder's adapters began on.

    Raises:
      UserError: it names both, and says what to do.
    """
    there = (storage.place(base) / "model.json").exists()
    found = identity(base) if there else "nothing"
    if found == card.base_lineage:
        return
    _, _, step = card.base_lineage.rpartition("@")
    remedy = "put the base back where it was when training began"
    if (
        there
        and step.isdecimal()
        and int(step) in steps(base)
        and read_card(base).identity(int(step)) == card.base_lineage
    ):
        remedy += f" (its step {step} is still there: move the later ones out of {checkpoints(base)})"
    raise UserError(
        f"{folder} holds adapters of the base weights {card.base_lineage} at {base}, but there is {found}; {remedy}"
    )


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
