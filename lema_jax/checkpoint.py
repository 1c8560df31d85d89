"""A model on disk: one folder that every later command takes by its name alone.

    folder/model.json             metadata: architecture, adapter, path of the frozen base (see `metadata`)
    folder/tokenizer/             its tokenizer, in Hugging Face's files
    folder/checkpoints/<step>/    Orbax: `weights` ({params: …} or {lora: …}), and of a trainer `optimizer`; see `steps`

Weights are stored stacked over layers, whatever layout they were trained in, and are read straight into the shardings
of the current mesh.
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

from lema_jax.errors import UserError
from lema_jax.metadata import NAME, Metadata, check_tokenizer, read_metadata, tokenizer_digests, write_metadata
from lema_jax.metadata import lineage as lineage  # for those who make metadata
from lema_jax.model import layout, linear
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.steps import DamagedCheckpoint, checkpoints, last_step, open_step, read_record, seal, steps
from lema_jax.storage import AnyFolder, RunFolder


def merit(tried: Mapping[str, Any]) -> float:
    """The score of a trial on dev: greedy accuracy, or minus the loss where accuracy was not measured."""
    return tried["accuracy"] if "accuracy" in tried else -tried["loss"]


def trials(folder: AnyFolder) -> dict[int, dict[str, Any]]:
    """The dev results of each committed step, {loss?, accuracy?, on}, from the step's record.

    Records of earlier versions have none: theirs come from `dev.jsonl`.
    """
    return Model.open(folder).trials()


def best_of(tried: Mapping[int, Mapping[str, Any]], on: str | None) -> int | None:
    """The best step (of equals the earliest) of the trials on the questions `on`; None where there is none."""
    same = sorted(step for step in tried if tried[step].get("on") == on)
    return max(same, key=lambda step: merit(tried[step])) if same else None


def best_step(folder: AnyFolder) -> int:
    """The committed step that did best on dev, among those tried on the same questions as the last one.

    Raises:
      UserError: the run was not tried on dev.
    """
    tried = trials(folder)
    best = best_of(tried, tried[max(tried)].get("on")) if tried else None
    if best is None:
        raise UserError(f"{folder} has no checkpoint that was tried on dev; train with dev.path, or name a step")
    return best


def identity(folder: AnyFolder, step: int | None = None) -> str:
    """`lineage@step`: the name of the weights in predictions, independent of the folder's path."""
    model = Model.open(folder)
    return model.identity() if step is None else model.metadata.identity_at(step)


def latest_step(folder: AnyFolder) -> int:
    """The last committed step of a model folder.

    Raises:
      UserError: there is none, or it is no model folder.
    """
    return last_step(Model.open(folder).folder)


def save_model(folder: AnyFolder, metadata: Metadata, weights: Any, tokenizer: str | Path) -> None:
    """Writes weights as step 0 of a new model folder, atomically.

    Args:
      folder: on this disk; absent or empty.
      metadata: its metadata.
      weights: the adapters where the metadata has a shape for them, else the full model; stacked over layers, any
        dtype. Several processes call this together, each with its shards.
      tokenizer: a folder with the tokenizer's files, copied.

    Raises:
      UserError: `folder` holds something, or is on gs://.
    """
    first = jax.process_index() == 0
    items = {"weights": {"lora" if metadata.lora else "params": weights}}
    with RunFolder(folder).fresh(makes=first) as fresh:
        if first:
            RunFolder(fresh / "tokenizer").copy_files(tokenizer)
            write_metadata(fresh, dataclasses.replace(metadata, tokenizer=tokenizer_digests(tokenizer)))
        multihost_utils.sync_global_devices("the folder is there")
        context = ocp.Context()
        # A host may hold them once, not twice: nobody changes them meanwhile, and one array at a time is encoded.
        context.memory.deepcopy_host_arrays = False
        context.memory.write_concurrent_bytes = 1 + max(leaf.nbytes for leaf in jax.tree.leaves(weights))
        with context, ocp.training.Checkpointer(checkpoints(fresh)) as checkpointer:
            checkpointer.save_checkpointables(0, items, force=True, custom_metadata=seal(metadata, 0, items))


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array on disk. Indexing reads it; among arrays read together, the last one stays in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.read()[index]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model folder whose metadata has been read."""

    folder: RunFolder
    metadata: Metadata

    @classmethod
    def open(cls, folder: AnyFolder) -> "Model":
        """Reads the metadata; raises as `read_metadata` does."""
        folder = RunFolder(folder)
        return cls(folder, read_metadata(folder))

    def identity(self) -> str:
        """`lineage@step` of the last step."""
        return self.metadata.identity_at(last_step(self.folder))

    @staticmethod
    def is_at(folder: AnyFolder) -> bool:
        """Whether the folder is a model folder."""
        return RunFolder(folder).has(NAME)

    @property
    def base_folder(self) -> RunFolder:
        """Where the frozen weights of these adapters are; the model's own folder where it has no adapters."""
        return self.folder.follow(self.metadata.base) if self.metadata.lora else self.folder

    @functools.cached_property
    def base(self) -> "Model":
        """The model with the frozen weights of these adapters; itself where it has none. See `require_base`."""
        return self.require_base(self.base_folder) if self.metadata.lora else self

    def trials(self) -> dict[int, dict[str, Any]]:
        """See `trials`."""
        found = {}
        log = {line["step"]: line for line in self.folder.read_log("dev.jsonl")}
        for step in steps(self.folder):
            with contextlib.suppress(DamagedCheckpoint):  # reported where its weights are wanted
                tried = read_record(self.folder, step, self.metadata).get("tried", log.get(step))
                if tried and ("loss" in tried or "accuracy" in tried):
                    found[step] = tried
        return found

    def require_base(self, base: RunFolder) -> "Model":
        """The model at `base`, if it has the weights that these adapters were trained on.

        Raises:
          UserError: it has others, or there is no model; names both and the remedy.
        """
        expected = self.metadata.base_lineage
        found = Model.open(base) if Model.is_at(base) else None
        if found and found.identity() == expected:
            return found
        _, _, step = expected.rpartition("@")
        remedy = "put the base back where it was when training began"
        if (
            found
            and step.isdecimal()
            and int(step) in steps(base)
            and found.metadata.identity_at(int(step)) == expected
        ):
            where = checkpoints(base)
            remedy += f" (its step {step} is still there: move the later ones out of {where})"
        raise UserError(
            f"{self.folder} holds adapters of the base weights {expected} at {base}, but there is "
            f"{found.identity() if found else 'nothing'}; {remedy}"
        )

    def stored_variables(self, step: int | None = None) -> dict[str, Any]:
        """See `stored_weights`."""
        metadata, folder = self.metadata, self.folder
        base = self.base.stored_variables() if metadata.lora else {}
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        name = "lora" if metadata.lora else "params"
        wanted = {"weights": {name: abstract_variables(Llama(metadata.config, lora=metadata.lora), mesh)[name]}}
        found = open_step(folder, last_step(folder) if step is None else step, metadata, wanted)
        check_tokenizer(folder, metadata)
        leaves, tree = jax.tree.flatten(found.as_stored(wanted))
        read = functools.lru_cache(maxsize=1)(lambda at: np.asarray(found.read(leaves, tree, [at])[0]))
        stored = [
            Stored(leaf.shape, np.dtype(leaf.dtype), functools.partial(read, at)) for at, leaf in enumerate(leaves)
        ]
        arrays = [one.read() for one in stored] if metadata.lora else stored
        return base | jax.tree.unflatten(tree, arrays)["weights"]

    def load_variables(
        self,
        mesh: Mesh,
        compute: Compute,
        step: int | None = None,
        lora: LoraConfig | None = None,
        kernels: str | None = None,
        transposed: bool = False,
    ) -> dict[str, Any]:
        """See `load_weights`."""
        lora = self.metadata.lora or lora
        kernels = kernels or (lora.base if lora else "dense")
        lora = lora and dataclasses.replace(lora, base="dense")
        arrange = None if compute.scan_layers else functools.partial(layout.layers_of, transposed=transposed)
        variables = self._load(mesh, compute, step, lora, kernels, arrange)
        check_tokenizer(self.folder, self.metadata)
        return variables if arrange is None else layout.unrolled(variables, transposed)

    def _load(
        self,
        mesh: Mesh,
        compute: Compute,
        step: int | None,
        lora: LoraConfig | None,
        kernels: str,
        arrange: Callable[[tuple[str, ...], Any], Any] | None,
    ) -> dict[str, Any]:
        metadata, folder = self.metadata, self.folder
        step = last_step(folder) if step is None else step
        model = Llama(metadata.config, dataclasses.replace(compute, scan_layers=True), lora)
        frozen, quantise = {}, None
        if metadata.lora:
            frozen = self.base._load(mesh, compute, None, lora, kernels, arrange)
            dense = wanted = {"lora": abstract_variables(model, mesh)["lora"]}
        else:
            full = model.clone(lora=None)
            dense = wanted = {"params": abstract_variables(full, mesh)["params"]}
            if kernels != "dense":
                wanted = {"params": abstract_variables(full, mesh, kernels)["params"]}
                quantise = functools.partial(jax.lax.map, linear.FORMATS[kernels].quantise)
        opened = open_step(folder, step, metadata, {"weights": dense})
        return frozen | opened.load({"weights": dense}, {"weights": wanted}, quantise, arrange)["weights"]


def stored_weights(folder: AnyFolder, step: int | None = None) -> tuple[Metadata, dict[str, Any]]:
    """The variables of a model folder, {params, lora?}, as stored: stacked over layers, in their stored dtypes.

    Full weights are a tree of `Stored`, for models larger than the host's memory; adapters are numpy arrays. Raises as
    `load_weights` does.
    """
    model = Model.open(folder)
    return model.metadata, model.stored_variables(step)


def load_weights(
    folder: AnyFolder,
    mesh: Mesh,
    compute: Compute,
    step: int | None = None,
    lora: LoraConfig | None = None,
    kernels: str | None = None,
    transposed: bool = False,
) -> tuple[Metadata, dict[str, Any]]:
    """The variables of a model folder, {params, lora?}, on the mesh, in the layout and dtype of `compute`.

    A folder with adapters loads its frozen base too, quantised as it was in training. Every process reads only its own
    shards.

    Args:
      step: the last by default.
      lora: adapters to be trained on full weights; they say how kernels are quantised.
      kernels: one of `config.KERNELS`, to quantise kernels in another way than that.
      transposed: in the unrolled layout, dense kernels transposed for decoding; see `layout.layers_of`.

    Raises:
      UserError: no such folder or step, a base that is missing or is not the one trained on, or arrays whose shapes
        differ from the metadata.
    """
    model = Model.open(folder)
    return model.metadata, model.load_variables(mesh, compute, step, lora, kernels, transposed)


def abstract_variables(model: Llama, mesh: Mesh, kernels: str = "dense") -> Any:
    """Every collection of the model as ShapeDtypeStructs with shardings.

    `kernels`, one of `config.KERNELS`: the format of the layers' kernels (not of the head); "dense" leaves the model's.
    """
    boxed = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return sharding.abstract(
        boxed if kernels == "dense" else boxed | {"params": _quantised(boxed["params"], kernels)}, mesh
    )


def _quantised(boxed: Any, kernels: str) -> Any:
    """Linen's boxes of dense weights with the layers' kernels quantised, sharded as the dense ones.

    Raises:
      UserError: a kernel that cannot be stored in nf4.
    """

    def one(path: Any, box: Any) -> Any:
        if path[-1].key != "kernel" or not path[0].key.startswith("layers"):
            return box
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        return jax.eval_shape(lambda kernel: linear.quantised(name, kernel, box.names, kernels), box.value)

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=lambda node: isinstance(node, nn.LogicallyPartitioned))
