"""The abstract state of a run, its shardings and jitted functions, made before any array exists.

The trainer fills it with arrays, a checkpoint is restored into it, the ahead-of-time compiler lowers it as it is.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lema_jax.model import flops, layout
from lema_jax.model.config import LlamaConfig
from lema_jax.model.llama import Llama
from lema_jax.parallel import processes, sharding
from lema_jax.training import objectives
from lema_jax.training.config import DevConfig, GuardConfig, TrainConfig
from lema_jax.training.optimizer import learning_rate, make_optimizer
from lema_jax.training.step import State, train_step

# With tensor parallelism: no windowed einsums, whose partial all-reduces XLA cannot combine. Elsewhere they are better:
# a full gradient is then never all-reduced.
_TPU = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


_KEPT = 4  # setups, the latest: a study's arms have a few shapes, and each holds its programs' memory
_kept: dict[tuple[str, LlamaConfig, Mesh], "Setup"] = {}


def of(config: TrainConfig, llama: LlamaConfig, mesh: Mesh) -> "Setup":
    """The setup of an earlier run of this process that computes the same, with its compiled step, else a new one.

    A study's arms and seeds are so traced and compiled once for each shape.
    """
    key = _computed(config), llama, mesh
    found = _kept.pop(key, None) or Setup(config, llama, mesh)
    _kept[key] = found
    while len(_kept) > _KEPT:
        del _kept[next(iter(_kept))]
    return found


def _computed(config: TrainConfig) -> str:
    """The configuration without what no program depends on. A field that is not named here counts."""
    free: dict[str, Any] = {
        "out": "",
        "init": "",
        "epochs": 0.0,
        "tokens": 0,
        "dev": DevConfig(),
        "keep": 0,
        "tensorboard": False,
        "log_every": 0,
        "checkpoint_every": 0,
        "wandb": "",
        "guard": GuardConfig(config.guard.max_grad_norm),
        "data": dataclasses.replace(config.data, path="", packing=True, seed=0, order=""),
        "steps": 0 if config.optimizer.schedule == "constant" else config.steps,
        "seed": 0,
    }
    return repr(dataclasses.replace(config, **free))


class Setup:
    """Abstract state, shardings and jitted functions of a run on a mesh.

    Attributes:
      collection: the trained one, "params" or "lora".
      state: the abstract State, leaves with shape, dtype and sharding, in the layout that the run computes in.
      stored: the same in the layout on disk, stacked over layers.
      frozen: the abstract collections that are not trained.
      batch: the abstract batch, [B, T] each.
      seed: the abstract seed of dropout, an argument so that all seeds run the same program.
      needs_reference: its `reference` comes from `training.reference`.
      rows: the slice of the batch that this process reads.
      order: [B], the row of the plan at each place of the batch, see `_order`.
      work: the shapes of a step, from which `flops` counts its operations.
      step: the jitted `train_step(state, frozen, batch, seed)`; the state is donated.
      objective: what the run minimises.
      score: the jitted loss of completions, `objectives.sft(trained, frozen, batch)`, without dropout.
      nll: the jitted `objectives.nll_of_tokens(trained, frozen, batch)`, [B, T] on every device.
    """

    def __init__(self, config: TrainConfig, llama: LlamaConfig, mesh: Mesh) -> None:
        self.collection = "lora" if config.lora else "params"
        schedule = learning_rate(config.optimizer, config.steps)
        self.optimizer = make_optimizer(config.optimizer, schedule)
        self.mesh = mesh
        self._model = Llama(llama, config.compute, config.lora, deterministic=False)
        self._stacked = Llama(llama, dataclasses.replace(config.compute, scan_layers=True), config.lora)
        self.state = self._abstract(self._state, self._model)
        self.stored = self._abstract(self._state, self._stacked)
        variables = self._abstract(_variables, self._model)
        self.frozen = {name: tree for name, tree in variables.items() if name != self.collection}
        by_rows = NamedSharding(mesh, sharding.TOKENS)
        shape = (config.data.batch_size, config.data.seq_len)
        self.batch = {
            name: jax.ShapeDtypeStruct(shape, jnp.float32 if name == "weights" else jnp.int32, sharding=by_rows)
            for name in ("tokens", "weights", "segment_ids", "positions")
        }
        self.accumulation = config.micro_batches(mesh.shape["data"] * mesh.shape["fsdp"])
        self.objective = objectives.of(config.objective, config.preference)
        self.needs_reference = self.objective.pairs and config.preference.reference == "stored"
        if self.needs_reference:
            self.batch["reference"] = self.batch["weights"]
        everywhere = NamedSharding(mesh, PartitionSpec())
        self.seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=everywhere)
        self.rows = processes.rows(by_rows, shape)
        self.order = _order(config, self.accumulation, mesh.shape["data"] * mesh.shape["fsdp"])
        self.work = flops.Step(
            llama,
            config.compute,
            config.lora,
            *shape,
            logits_first=self.objective.pairs,
            reference=self.objective.pairs and not self.needs_reference,
        )
        on_tpu = mesh.devices.flat[0].platform == "tpu"
        self.step = jax.jit(
            functools.partial(
                train_step,
                model=self._model,
                collection=self.collection,
                optimizer=self.optimizer,
                schedule=schedule,
                accumulation=self.accumulation,
                ragged=config.data.examples_per_step > 0,
                max_grad_norm=config.guard.max_grad_norm or float(np.finfo(np.float32).max),
                objective=self.objective,
            ),
            donate_argnums=0,
            out_shardings=(sharding.of(self.state), None),
            compiler_options=_TPU if on_tpu and mesh.shape["tensor"] > 1 else None,
        )
        evaluated: dict[str, Any] = {"model": self._model.clone(deterministic=True), "collection": self.collection}
        self.score = jax.jit(functools.partial(objectives.sft, key=None, **evaluated))
        self.nll = jax.jit(functools.partial(objectives.nll_of_tokens, **evaluated), out_shardings=everywhere)

    def lowered_step(self) -> jax.stages.Lowered:
        """`step` for the shapes of this run, to be compiled."""
        return self.step.lower(self.state, self.frozen, self.batch, self.seed)

    @functools.cached_property
    def compiled_step(self) -> jax.stages.Compiled:
        """`step` for the shapes of this run: a batch of others is then an error, and nothing is compiled later."""
        return self.lowered_step().compile()

    def put_seed(self, seed: int) -> jax.Array:
        """The seed of dropout, a uint32 [] on every device."""
        return jax.device_put(np.uint32(seed), self.seed.sharding)

    def random(self, seed: int) -> Any:
        """The trained collection with random values, the same in every layout and on every mesh."""
        return self._random(np.uint32(seed))

    @functools.cached_property
    def _random(self) -> Any:
        def init(seed: jax.Array) -> Any:
            trained = nn.unbox(_variables(self._stacked, jax.random.key(seed)))[self.collection]
            return trained if self._model.compute.scan_layers else layout.unstack_layers(trained)

        return jax.jit(init, out_shardings=sharding.of(self.state.trained))

    @functools.cached_property
    def begin(self) -> Callable[[Any], State]:
        """Makes the state at step 0 with these weights (donated)."""
        make = lambda trained: State(jnp.int32(0), trained, self.optimizer.init(trained))
        return jax.jit(make, out_shardings=sharding.of(self.state), donate_argnums=0)

    @functools.cached_property
    def to_disk(self) -> Callable[[State], State]:
        """The state in the layout on disk; scanned layers are in it already."""
        if self._model.compute.scan_layers:
            return lambda state: state
        return jax.jit(layout.stack_layers, out_shardings=sharding.of(self.stored))

    @functools.cached_property
    def from_disk(self) -> Callable[[State], State]:
        """The inverse of `to_disk`."""
        if self._model.compute.scan_layers:
            return lambda stored: stored
        return jax.jit(layout.unstack_layers, out_shardings=sharding.of(self.state))

    def put(self, rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """The global batch, from the rows that this process has read (`self.rows` of it)."""

        def part(name: str, index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(self.batch[name].shape[0])
            return rows[name][start - self.rows.start : stop - self.rows.start, index[1]]

        return {
            name: jax.make_array_from_callback(array.shape, array.sharding, functools.partial(part, name))
            for name, array in self.batch.items()
            if name in rows
        }

    def _state(self, model: Llama) -> State:
        trained = _variables(model)[self.collection]
        return State(jnp.int32(0), trained, self.optimizer.init(trained))

    def _abstract(self, make: Callable[[Llama], Any], model: Llama) -> Any:
        return sharding.abstract(jax.eval_shape(functools.partial(make, model)), self.mesh)


def _order(config: TrainConfig, accumulation: int, devices: int) -> np.ndarray:
    """[B]: the row of the plan at each place of a batch, whose places are cut into one run for each device.

    Where a micro-batch is a place of every device, it gets consecutive rows: those that `examples_per_step` leaves
    empty, the last ones, are then whole micro-batches, which are not computed. Otherwise the order is the plan's.
    """
    order = np.arange(config.data.batch_size)
    if config.data.examples_per_step and len(order) == accumulation * devices:
        return order.reshape(accumulation, devices).T.ravel()
    return order


def _variables(model: Llama, key: jax.Array | None = None) -> Any:
    return model.init(jax.random.key(0) if key is None else key, jnp.zeros((1, 1), jnp.int32))
