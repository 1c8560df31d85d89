"""The training loop: step, watch, try on dev, save, until the end or a notice to stop."""

import json
import math
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
from jax.sharding import Mesh

from lema_jax import checkpoint
from lema_jax.checkpoint import Card
from lema_jax.data import batches
from lema_jax.errors import UserError
from lema_jax.interrupts import Interrupted
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import make_mesh
from lema_jax.parallel.processes import Preemption
from lema_jax.parallel.watchdog import Watchdog
from lema_jax.training import compiled, start
from lema_jax.training.config import TrainConfig, as_dict, too_long, validate
from lema_jax.training.dev import Dev, Judge
from lema_jax.training.guard import Guard
from lema_jax.training.metrics import Metrics, ideal_seconds
from lema_jax.training.profile import Profile
from lema_jax.training.program import Program
from lema_jax.training.step import State


def run(
    config: TrainConfig,
    *,
    allow_config_change: bool = False,
    judge: Callable[[Card, Mesh], Judge] | None = None,
    profile: str = "",
) -> tuple[int, float]:
    """Trains until the last step, and returns it with its loss (NaN where no step was left).

    Called again with the same configuration, it continues where it stopped.

    Args:
      judge: makes what answers dev questions, for a model of that card on that mesh.
      profile: a folder for a profiler's trace of a few steps; empty for none.

    Raises:
      UserError: a configuration that does not hold together, or differs from the run's own; missing or foreign data,
        weights or tokenizer; a loss or gradient that is no number.
      Interrupted: SIGTERM or Ctrl-C came, and the run is saved.
    """
    validate(config, jax.device_count())
    if jax.process_index() == 0:
        print(json.dumps(as_dict(config), indent=2), flush=True)
    given, config = config, start.resolved(config)
    out, mesh = config.out, make_mesh(config.mesh)
    with sharding.use(mesh):
        begun = start.begin(given, config, mesh, allow_config_change)
        if found := too_long(config.data.seq_len, begun.card.config):
            raise UserError("; ".join(found))
        program = Program(config, begun.card.config, mesh)
        iterator = iter(batches.batches(config.data, program.rows))
        state = start.resume(out, program, iterator)
        if state is None:
            state = program.begin(program.random(config.seed) if begun.trained is None else begun.trained)
        began = time.monotonic()
        # Compiled before the first batch: a batch of another shape is then an error, and nothing compiles anew.
        step = program.step.lower(program.state, program.frozen, program.batch).compile()
        seconds = round(time.monotonic() - began, 2)
        dev = Dev(config, program, judge(begun.card, mesh) if judge else None) if config.dev.path else None
        card = start.claim(given, begun, int(state.step))
        start.record(out, int(state.step), compile_seconds=seconds)
        compiled.seal(out)
        with _checkpointer(config, dev) as checkpointer:
            return _train(config, program, step, state, card, begun.frozen, iterator, dev, checkpointer, profile)


def _train(
    config: TrainConfig,
    program: Program,
    train_step: Any,
    state: State,
    card: Card,
    frozen: Any,
    iterator: grain.DatasetIterator,
    dev: Dev | None,
    checkpointer: ocp.training.Checkpointer,
    profile: str,
) -> tuple[int, float]:
    """Steps until the last, which is returned with its loss.

    A step's metrics are fetched when the next is in flight, so the device never waits.
    """
    first, loss = int(state.step), math.nan
    guard = Guard(config.guard, config.data.path)
    under_way: tuple[int, dict[str, jax.Array], np.ndarray] | None = None
    log = Metrics(config, first, ideal_seconds(program.work, list(program.mesh.devices.flat)))
    with log, Preemption() as preemption, Profile(profile, first) as profiler, Watchdog("step") as watchdog:

        def settle() -> None:
            nonlocal under_way, loss
            if under_way:
                step, metrics, records = under_way
                found = jax.device_get(metrics)
                under_way, loss = None, float(found["loss"])
                log.write(step, found)
                watchdog.alive(f"step {step}")
                guard.check(step, found, records)

        for step in range(first + 1, config.steps + 1):
            profiler.before(step)
            rows = next(iterator)
            batch = program.put(rows)
            with jax.transfer_guard("disallow"):
                state, metrics = train_step(state, frozen, batch)
            settle()
            under_way = step, metrics, rows["records"][rows["segment_ids"] > 0]
            stopping = preemption.stops_at(step) and step < config.steps
            if step % config.checkpoint_every == 0 or step == config.steps or stopping:
                settle()  # nothing ill is saved
                tried = dev.try_on(step, state, frozen) if dev else None
                items = start.items(program, program.to_disk(state))
                told = checkpoint.seal(card, step, items, data=iterator.get_state(), tried=tried)
                checkpointer.save_checkpointables_async(step, items, force=True, custom_metadata=told)
                log.keep()
                compiled.seal(config.out)
            if stopping:
                checkpointer.close()
                name, number = signal.Signals(preemption.number).name, preemption.number
                said = f"{name}: saved at step {step} of {config.steps}; the same command goes on from there"
                raise Interrupted(said, number)
    return config.steps, loss


def _checkpointer(config: TrainConfig, dev: Dev | None) -> ocp.training.Checkpointer:
    policies = ocp.training.preservation_policies
    keep: Any = policies.LatestN(config.keep) if config.keep else policies.PreserveAll()
    if dev is not None:
        keep = policies.AnyPreservationPolicy([keep, _Best(dev)])
    return ocp.training.Checkpointer(
        checkpoint.checkpoints(config.out), preservation_policy=keep, cleanup_tmp_directories=True
    )


class _Best(ocp.training.preservation_policies.PreservationPolicy):
    """Keeps the checkpoint that did best on dev."""

    def __init__(self, dev: Dev):
        self._dev = dev

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        there = {one.step for one in checkpoints}
        tried = {step: tried for step, tried in self._dev.tried.items() if step in there}
        best = checkpoint.best_of(tried, self._dev.on)
        return [one.step == best for one in checkpoints]
