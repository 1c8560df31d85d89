"""A run's own checkpoints: saved, preserved, resumed, and put aside where they are damaged."""

import datetime
import sys
from collections.abc import Sequence
from typing import Any

import grain
import jax
import orbax.checkpoint.experimental.v1 as ocp

from lema_jax import checkpoint
from lema_jax.checkpoint import DamagedCheckpoint, Metadata, Model
from lema_jax.data import batches
from lema_jax.data.batches import DataConfig
from lema_jax.errors import UserError
from lema_jax.storage import RunFolder
from lema_jax.training import compiled
from lema_jax.training.dev import Dev
from lema_jax.training.setup import Setup
from lema_jax.training.step import State


def items(setup: Setup, stored: State) -> dict[str, Any]:
    """A checkpoint's items; weights apart from the rest, so that an evaluator reads nothing else.

    The position in the data is small and the same for every process: it is in the checkpoint's record, where any number
    of processes finds it.
    """
    return {
        "weights": {setup.collection: stored.trained},
        "optimizer": {"step": stored.step, "state": stored.optimizer},
    }


def resume(own: Model, setup: Setup, iterator: grain.DatasetIterator, data: DataConfig) -> State:
    """The state of the newest readable checkpoint of `own`; sets the iterator, of `data`, to its position.

    Renames damaged checkpoints, with a warning: nothing is deleted.

    Raises:
      UserError: a checkpoint of other shapes or of another packing, or only damaged ones.
    """
    folder = own.folder
    there = checkpoint.steps(folder)
    damaged: dict[int, DamagedCheckpoint] = {}
    for step in reversed(there):
        try:
            abstract = items(setup, setup.stored)
            opened = checkpoint.open_step(folder, step, own.metadata, abstract)
            found = opened.load(abstract)
            if "data" not in opened.record:
                raise DamagedCheckpoint(f"checkpoint {step} of {folder} does not say where in the data it was made")
        except DamagedCheckpoint as error:
            damaged[step] = error
            continue
        _put_aside(folder, damaged)
        _set_position(iterator, opened.record, data, f"checkpoint {step} of {folder}")
        print(f"going on from step {step} of {folder}", flush=True)
        trained, optimizer = found["weights"][setup.collection], found["optimizer"]
        return setup.from_disk(State(optimizer["step"], trained, optimizer["state"]))
    raise UserError(
        f"none of the checkpoints {there} of {folder} can be read ({damaged[there[-1]]}); begin again in another out"
    )


def _set_position(iterator: grain.DatasetIterator, record: dict[str, Any], data: DataConfig, where: str) -> None:
    """Sets the iterator to a checkpoint's position: the number of an example, or a row of the pack that starts there.

    Raises:
      UserError: the data is packed otherwise here, so that the row holds other examples. Checkpoints of earlier
        versions do not say how theirs was.
    """
    position, packer = record["data"], record.get("packer")
    try:
        if position.get("next_row") and packer not in (None, batches.packer(data)):
            raise KeyError("next_row")
        iterator.set_state(position)
    except KeyError:  # the state of free packing differs from that of steps with a number of examples
        raise UserError(
            f"{where} was made with another packing, in which its place in the data has no meaning here; set "
            "data.seq_len, data.batch_size, data.examples_per_step, data.packing and data.order as they were, or "
            "choose another out"
        ) from None


def _put_aside(folder: RunFolder, damaged: dict[int, DamagedCheckpoint]) -> None:
    if jax.process_index():
        return
    for step, error in damaged.items():
        path = checkpoint.checkpoints(folder) / str(step)
        aside = path.with_name(f"{step}.damaged-{datetime.datetime.now():%Y%m%dT%H%M%S}")
        path.rename(aside)
        print(f"warning: {error}; it is now {aside.name}", file=sys.stderr)


class Saver:
    """Writes a run's checkpoints; a context manager that waits for the last one.

    Args:
      keep: how many of the newest stay; 0 for all. The best on dev stays too.
    """

    def __init__(
        self, folder: RunFolder, keep: int, setup: Setup, metadata: Metadata, data: DataConfig, dev: Dev | None
    ) -> None:
        self._folder, self._setup, self._metadata, self._dev = folder, setup, metadata, dev
        self._packer = batches.packer(data)
        policies = ocp.training.preservation_policies
        preserved: Any = policies.LatestN(keep) if keep else policies.PreserveAll()
        if dev is not None:
            preserved = policies.AnyPreservationPolicy([preserved, _Best(dev)])
        self._checkpointer = ocp.training.Checkpointer(
            checkpoint.checkpoints(folder), preservation_policy=preserved, cleanup_tmp_directories=True
        )

    def __enter__(self) -> "Saver":
        self._checkpointer.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._checkpointer.__exit__(*exc)

    def save(self, step: int, state: State, frozen: Any, position: Any, *, evaluate: bool) -> None:
        """Evaluates the step on dev, and starts writing its checkpoint; a failed evaluation is raised after that.

        Args:
          position: the state of the data iterator.
          evaluate: False for a step that an undisturbed run does not save, so that both have the same trials.
        """
        tried = None
        try:
            if self._dev and evaluate:
                tried = self._dev.try_on(step, state, frozen)
        finally:
            stored = items(self._setup, self._setup.to_disk(state))
            record = checkpoint.seal(self._metadata, step, stored, data=position, packer=self._packer, tried=tried)
            self._checkpointer.save_checkpointables_async(step, stored, force=True, custom_metadata=record)
            compiled.seal(self._folder)

    def wait(self) -> None:
        """Returns when all checkpoints are committed; nothing can be saved afterwards."""
        self._checkpointer.close()


class _Best(ocp.training.preservation_policies.PreservationPolicy):
    """Preserves the checkpoint that did best on dev."""

    def __init__(self, dev: Dev) -> None:
        self._dev = dev

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        there = {one.step for one in checkpoints}
        tried = {step: tried for step, tried in self._dev.tried.items() if step in there}
        best = checkpoint.best_of(tried, self._dev.on)
        return [one.step == best for one in checkpoints]
