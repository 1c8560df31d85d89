"""The training loop: step, log, evaluate on dev, save, until the last step or a preemption signal."""

import dataclasses
import json
import math
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from lema_jax.checkpoint import Metadata
from lema_jax.data import batches
from lema_jax.interrupts import Interrupted
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import make_mesh
from lema_jax.parallel.processes import Preemption
from lema_jax.parallel.watchdog import Watchdog
from lema_jax.storage import RunFolder
from lema_jax.training import checkpoints, compiled, start
from lema_jax.training import setup as setups
from lema_jax.training.checkpoints import Saver
from lema_jax.training.config import TrainConfig, as_dict, validate
from lema_jax.training.dev import Dev, Judge
from lema_jax.training.guard import Guard
from lema_jax.training.metrics import Metrics, ideal_seconds, sinks
from lema_jax.training.profile import Profile
from lema_jax.training.reference import Reference
from lema_jax.training.setup import Setup
from lema_jax.training.start import Origin
from lema_jax.training.step import State


def run(
    config: TrainConfig,
    *,
    allow_config_change: bool = False,
    judge: Callable[[Metadata, Mesh], Judge] | None = None,
    profile: str = "",
) -> tuple[int, float]:
    """Trains until the last step, and returns it with its loss (NaN where no step was left).

    Called again with the same configuration, it continues where it stopped.

    Args:
      judge: makes the function that answers dev questions, for a model of that metadata on that mesh.
      profile: a folder for a profiler's trace of a few steps; empty for none.

    Raises:
      UserError: an inconsistent configuration, or one that differs from the run's own; missing or foreign data,
        weights or tokenizer; a non-finite loss or gradient.
      Interrupted: SIGTERM or Ctrl-C came, and the run is saved.
    """
    # 1. Validate the configuration, and resolve its length, folder and mesh.
    validate(config, jax.device_count())
    given = as_dict(config)
    start.require_data(config)
    config = start.resolved(config)
    start.require_fit(config)
    folder, mesh = RunFolder(config.out), make_mesh(config.mesh)
    with sharding.use(mesh):
        # 2. Find the weights to begin with, and the position in the data. Nothing is written.
        origin = start.find(config, given, folder, mesh, allow_config_change)
        if jax.process_index() == 0:
            print(json.dumps(given, indent=2), flush=True)  # after the refusals, which it would hide
        setup = setups.of(config, origin.metadata.config, mesh)
        iterator = iter(batches.batches(config.data, setup.order[setup.rows]))
        if origin.own:
            state = checkpoints.resume(origin.own, setup, iterator, config.data)
        else:
            state = setup.begin(setup.random(config.seed) if origin.trained is None else origin.trained)
        # 3. Compile before the first batch: a batch of another shape is then an error, and nothing is recompiled.
        if jax.process_index() == 0:
            print("compiling a step, which a later run of the same shape need not", file=sys.stderr)
        began = time.monotonic()
        train_step = setup.compiled_step
        compile_seconds = round(time.monotonic() - began, 2)
        dev = None
        if config.dev.path:
            tried = origin.own.trials() if origin.own else {}
            dev = Dev(config.dev, config.data, folder, setup, judge(origin.metadata, mesh) if judge else None, tried)
        reference = _reference(config, origin, setup, state, folder) if setup.needs_reference else None
        # 4. Claim the folder: all that can be refused has been checked.
        first = int(state.step)
        metadata = start.claim(folder, origin, first, given, config.data.path, compile_seconds)
        compiled.seal(folder)
        # 5. Train.
        log = Metrics(
            folder,
            first,
            config.steps,
            log_every=config.log_every,
            batch_tokens=config.data.batch_size * config.data.seq_len,
            objective=setup.objective,
            ideal=ideal_seconds(setup.work, list(mesh.devices.flat)),
            sinks=sinks(folder, config.tensorboard, config.wandb),
        )
        guard = Guard(config.guard, config.data.path)
        saving = Saver(folder, config.keep, setup, metadata, config.data, dev)
        with saving as saver, log, Profile(profile, first) as profiler:
            seed = setup.put_seed(config.seed)
            trainer = _Trainer(setup, train_step, origin.frozen, seed, iterator, saver, log, guard, profiler, reference)
            loss = trainer.train(state, first, config.steps, config.checkpoint_every)
    return config.steps, loss


def _reference(config: TrainConfig, origin: Origin, setup: Setup, state: State, folder: RunFolder) -> Reference:
    """The nll of all pairs by the weights that the run began with: computed, where they are not stored."""
    reference = Reference(config, origin.metadata.init)
    if len(reference.missing):
        trained, frozen = state.trained, origin.frozen
        if origin.own:
            began = start.beginning(config, folder, setup.mesh, origin.metadata.init)
            trained, frozen = began.trained, began.frozen
        reference.fill(setup, setup.random(config.seed) if trained is None else trained, frozen)
    return reference


@dataclasses.dataclass
class _Trainer:
    """The loop over steps. A step's metrics are fetched while the next one runs, so the device never waits."""

    setup: Setup
    train_step: Callable[..., tuple[State, dict[str, jax.Array]]]
    frozen: Any
    seed: jax.Array
    iterator: grain.DatasetIterator
    saver: Saver
    log: Metrics
    guard: Guard
    profiler: Profile
    reference: Reference | None = None
    _in_flight: tuple[int, dict[str, jax.Array], np.ndarray] | None = None
    _loss: float = math.nan

    def train(self, state: State, first: int, last: int, save_every: int) -> float:
        """Runs the steps after `first` up to `last`; returns the loss of the last one.

        Raises:
          UserError: more non-finite steps in a row than the guard allows.
          Interrupted: a preemption signal came, and the run is saved.
        """
        with Preemption() as preemption, Watchdog("step") as watchdog:
            for step in range(first + 1, last + 1):
                # 1. Dispatch the step.
                self.profiler.before(step)
                rows = next(self.iterator)
                if self.reference:
                    rows["reference"] = self.reference.of(rows)
                batch = self.setup.put(rows)
                with jax.transfer_guard("disallow"):
                    state, metrics = self.train_step(state, self.frozen, batch, self.seed)
                # 2. Meanwhile fetch, log and check the step before it.
                self._settle(watchdog)
                self._in_flight = step, metrics, rows["records"][rows["segment_ids"] > 0]
                # 3. Save; a step is checked first, so that no non-finite one is saved.
                stopping = preemption.stops_at(step) and step < last
                due = step % save_every == 0 or step == last
                if due or stopping:
                    self._settle(watchdog)
                    self.saver.save(step, state, self.frozen, self.iterator.get_state(), evaluate=due)
                    self.log.keep()
                # 4. Stop where a preemption signal came.
                if stopping:
                    self.saver.wait()
                    name, number = signal.Signals(preemption.number).name, preemption.number
                    line = f"{name}: saved at step {step} of {last}; the same command goes on from there"
                    raise Interrupted(line, number)
        return self._loss

    def _settle(self, watchdog: Watchdog) -> None:
        """Waits for the step in flight, if any; logs and checks it."""
        if self._in_flight is None:
            return
        (step, metrics, records), self._in_flight = self._in_flight, None
        found = jax.device_get(metrics)
        self._loss = float(found["loss"])
        self.log.write(step, found)
        watchdog.alive(f"step {step}")
        self.guard.check(step, found, records)
