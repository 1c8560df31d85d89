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
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import learning_rate, make_optimizer
from lema_jax.training.step import State, train_step

# With tensor parallelism: no windowed einsums, whose partial all-reduces XLA cannot combine. Elsewhere they are better:
# a full gradient is then never all-reduced.
_TPU = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


class Setup:
    """Abstract state, shardings and jitted functions of a run on a mesh.

    Attributes:
      collection: the trained one, "params" or "lora".
      state: the abstract State, leaves with shape, dtype and sharding, in the layout that the run computes in.
      stored: the same in the layout on disk, stacked over layers.
      frozen: the abstract collections that are not trained.
      batch: the abstract batch, [B, T] each.
      needs_reference: its `reference` comes from `training.reference`.
      rows: the slice of the batch that this process reads.
      work: the shapes of a step, from which `flops` counts its operations.
      step: the jitted `train_step(state, frozen, batch)`; the state is donated.
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
        self.rows = processes.rows(by_rows, shape)
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
                seed=config.seed,
                objective=self.objective,
            ),
            donate_argnums=0,
            out_shardings=(sharding.of(self.state), None),
            compiler_options=_TPU if on_tpu and mesh.shape["tensor"] > 1 else None,
        )
        evaluated: dict[str, Any] = {"model": self._model.clone(deterministic=True), "collection": self.collection}
        self.score = jax.jit(functools.partial(objectives.sft, key=None, **evaluated))
        everywhere = NamedSharding(mesh, PartitionSpec())
        self.nll = jax.jit(functools.partial(objectives.nll_of_tokens, **evaluated), out_shardings=everywhere)

    def random(self, seed: int) -> Any:
        """The trained collection with random values, the same in every layout and on every mesh."""

        def init() -> Any:
            trained = nn.unbox(_variables(self._stacked, jax.random.key(seed)))[self.collection]
            return trained if self._model.compute.scan_layers else layout.unstack_layers(trained)

        return jax.jit(init, out_shardings=sharding.of(self.state.trained))()

    def begin(self, trained: Any) -> State:
        """The state at step 0 with these weights (donated)."""
        make = lambda trained: State(jnp.int32(0), trained, self.optimizer.init(trained))
        return jax.jit(make, out_shardings=sharding.of(self.state), donate_argnums=0)(trained)

    def to_disk(self, state: State) -> State:
        """A copy of the state in the layout on disk; the original may be donated right after."""
        copy = lambda state: jax.tree.map(jnp.copy, layout.stack_layers(state))
        return jax.jit(copy, out_shardings=sharding.of(self.stored))(state)

    def from_disk(self, stored: State) -> State:
        """The inverse of `to_disk`."""
        if self._model.compute.scan_layers:
            return stored
        return jax.jit(layout.unstack_layers, out_shardings=sharding.of(self.state))(stored)

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


def _variables(model: Llama, key: jax.Array | None = None) -> Any:
    return model.init(jax.random.key(0) if key is None else key, jnp.zeros((1, 1), jnp.int32))
