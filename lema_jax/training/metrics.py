"""What a run says of itself: metrics.jsonl with a line for every step, the progress line, TensorBoard, W&B."""

import datetime
import importlib
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.model import flops
from lema_jax.parallel import chips
from lema_jax.training.config import TrainConfig

Sink = Callable[[int, dict[str, float]], None]


def ideal_seconds(work: flops.Step, devices: Sequence[jax.Device]) -> float | None:
    """Of a step whose model flops alone the devices compute at their peak; None where the peak is not known."""
    peak = chips.peak_flops(devices[0].device_kind)
    return None if peak is None else flops.model_flops(work) / (peak * len(devices))


class Metrics:
    """Lines past the step that a run resumes at are dropped from metrics.jsonl: they come again.

    Of several processes the first speaks for all. `ideal`: see `ideal_seconds`; MFU is the share that these are of a
    step's own seconds, and without them there is none.
    """

    def __init__(self, config: TrainConfig, first: int, ideal: float | None):
        self._config, self._ideal, self._speaks = config, ideal, jax.process_index() == 0
        self._path = storage.place(config.out) / "metrics.jsonl" if self._speaks else Path(os.devnull)
        self._since = self._shown = time.monotonic()
        self._lines: list[dict[str, float]] = []
        kept = [line for line in storage.read_log(self._path) if line["step"] <= first]
        storage.write(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._sinks = _sinks(config) if self._speaks else []

    def __enter__(self) -> "Metrics":
        # On gs://, where no file can grow, lines are held until `keep`; what is lost with a process is made anew.
        self._file = io.StringIO() if storage.is_remote(self._path) else open(self._path, "a")
        return self

    def __exit__(self, *exc: object) -> None:
        self.keep()
        self._file.close()

    def keep(self) -> None:
        """Brings to the file what has been written; called with every checkpoint."""
        if isinstance(self._file, io.StringIO):
            storage.append(self._path, self._file.getvalue())
            self._file = io.StringIO()

    def write(self, step: int, metrics: dict[str, np.ndarray]) -> None:
        """One step's numbers, to everything that listens; the progress line every `log_every` steps."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        line: dict[str, float] = {"step": step} | {name: float(value) for name, value in metrics.items()}
        line |= {"seconds": seconds, "tokens_per_second": line["tokens"] / seconds}
        line |= {"mfu": self._ideal / seconds} if self._ideal else {}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink(step, line)
        self._lines.append(line)
        if self._speaks and (step % self._config.log_every == 0 or step == self._config.steps):
            self._show(step, now - self._shown)
            self._lines, self._shown = [], now

    def _show(self, step: int, seconds: float) -> None:
        lines, steps = self._lines, self._config.steps
        mean = sum(line["loss"] * line["loss_tokens"] for line in lines) / max(sum(l["loss_tokens"] for l in lines), 1)
        real = sum(line["tokens"] for line in lines) / seconds
        padded = self._config.data.batch_size * self._config.data.seq_len * len(lines) / seconds
        mfu = f"MFU {self._ideal * len(lines) / seconds:.1%}  " if self._ideal else ""
        left = datetime.timedelta(seconds=round(seconds / len(lines) * (steps - step)))
        print(
            f"step {step}/{steps}  loss {mean:.4f}  grad {lines[-1]['grad_norm']:.3f}  "
            f"lr {lines[-1]['learning_rate']:.2e}  {real:,.0f} tokens/s ({padded:,.0f} with padding)  "
            f"{mfu}left {left}",
            flush=True,
        )


def _sinks(config: TrainConfig) -> list[Sink]:
    sinks: list[Sink] = []
    if config.tensorboard:
        writer = _needed("tensorboardX", "tensorboard").SummaryWriter(f"{config.out}/tensorboard")

        def board(step: int, line: dict[str, float]) -> None:
            for name, value in line.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        sinks.append(board)
    if config.wandb:
        # The run's folder is its name, so that a run which goes on goes on there too.
        name = storage.place(config.out).name
        folder = None if storage.is_remote(config.out) else config.out
        run = _needed("wandb", "wandb").init(project=config.wandb, id=name, resume="allow", dir=folder)
        sinks.append(lambda step, line: run.log(line, step=step))
    return sinks


def _needed(package: str, field: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"{field} is set, but the package {package} is missing; pip install {package}") from None
