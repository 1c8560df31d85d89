"""Metrics of a run: metrics.jsonl with a line for every step, the progress line, TensorBoard, W&B."""

import datetime
import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lema_jax.errors import UserError
from lema_jax.model import flops
from lema_jax.parallel import chips
from lema_jax.storage import RunFolder
from lema_jax.training.objectives import OBJECTIVES, Objective

Sink = Callable[[int, dict[str, float]], None]


def ideal_seconds(work: flops.Step, devices: Sequence[jax.Device]) -> float | None:
    """Seconds of a step in which the devices compute only model flops, at their peak; None where it is unknown."""
    peak = chips.peak_flops(devices[0].device_kind)
    return None if peak is None else flops.model_flops(work) / (peak * len(devices))


class Metrics:
    """Writes the metrics of each step; the first process does, for all.

    Lines of metrics.jsonl after the step that a run resumes from are dropped: those steps run again.

    Args:
      folder: the run's.
      first: the step that the run begins at or resumes from.
      steps: of the whole run.
      log_every: steps between progress lines; the last step always has one.
      batch_tokens: tokens of a global batch, with padding.
      objective: what the run minimises; losses are averaged by its weight.
      ideal: see `ideal_seconds`; MFU = ideal / measured step time, omitted where it is None.
      sinks: further receivers of each line, see `sinks`.
    """

    def __init__(
        self,
        folder: RunFolder,
        first: int,
        steps: int,
        *,
        log_every: int,
        batch_tokens: int,
        objective: Objective = OBJECTIVES["sft"],
        ideal: float | None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._steps, self._log_every, self._batch_tokens, self._ideal = steps, log_every, batch_tokens, ideal
        self._objective, self._sinks = objective, sinks
        self._log = folder.log("metrics.jsonl", first) if jax.process_index() == 0 else None
        self._since = self._shown = time.monotonic()
        self._lines: list[dict[str, float]] = []

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._log:
            self._log.close()

    def keep(self) -> None:
        """Stores all lines; called with every checkpoint."""
        if self._log:
            self._log.keep()

    def write(self, step: int, metrics: dict[str, np.ndarray]) -> None:
        """Writes one step's metrics everywhere; the progress line every `log_every` steps."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        if self._log is None:
            return
        line: dict[str, float] = {"step": step} | {name: float(value) for name, value in metrics.items()}
        line |= {"seconds": seconds, "tokens_per_second": line["tokens"] / seconds}
        line |= {"mfu": self._ideal * line["computed"] / self._batch_tokens / seconds} if self._ideal else {}
        self._log.write(line)
        for sink in self._sinks:
            sink(step, line)
        self._lines.append(line)
        if step % self._log_every == 0 or step == self._steps:
            self._show(step, now - self._shown)
            self._lines, self._shown = [], now

    def _show(self, step: int, seconds: float) -> None:
        lines, steps = self._lines, self._steps
        weight = max(sum(line[self._objective.counts[0]] for line in lines), 1)
        mean = lambda name: sum(line[name] * line[self._objective.counts[0]] for line in lines) / weight
        more = "".join(f"{name} {mean(name):.3f}  " for name in self._objective.shown)
        real = sum(line["tokens"] for line in lines) / seconds
        computed = sum(line["computed"] for line in lines)
        mfu = f"MFU {self._ideal * computed / self._batch_tokens / seconds:.1%}  " if self._ideal else ""
        left = datetime.timedelta(seconds=round(seconds / len(lines) * (steps - step)))
        print(
            f"step {step}/{steps}  loss {mean('loss'):.4f}  {more}grad {lines[-1]['grad_norm']:.3f}  "
            f"lr {lines[-1]['learning_rate']:.2e}  {real:,.0f} tokens/s ({computed / seconds:,.0f} with padding)  "
            f"{mfu}left {left}",
            flush=True,
        )


def sinks(folder: RunFolder, tensorboard: bool, wandb: str) -> list[Sink]:
    """TensorBoard's and W&B's receivers of metrics, in the first process.

    Args:
      tensorboard: whether to write event files to folder/tensorboard.
      wandb: a project of Weights & Biases; empty for none.

    Raises:
      UserError: a package that is not installed.
    """
    found: list[Sink] = []
    if jax.process_index():
        return found
    if tensorboard:
        writer = _needed("tensorboardX", "tensorboard").SummaryWriter(f"{folder}/tensorboard")

        def board(step: int, line: dict[str, float]) -> None:
            for name, value in line.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        found.append(board)
    if wandb:
        # The folder's name is the run's id, so that a run which resumes does so there too.
        place = None if folder.is_remote else str(folder)
        run = _needed("wandb", "wandb").init(project=wandb, id=folder.path.name, resume="allow", dir=place)
        found.append(lambda step, line: run.log(line, step=step))
    return found


def _needed(package: str, field: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{field} is set, but the package {package} is missing; pip install {package}") from None
