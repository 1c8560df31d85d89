"""Evaluation on held-out training questions at each checkpoint: dev.jsonl."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax

from lema_jax import checkpoint, digests, storage
from lema_jax.data import batches, dataset
from lema_jax.data.batches import DataConfig
from lema_jax.storage import RunFolder
from lema_jax.training.config import DevConfig
from lema_jax.training.setup import Setup
from lema_jax.training.step import State

Judge = Callable[[dict[str, Any]], float]  # variables of a model -> greedy accuracy on the dev questions


class Dev:
    """Measures dev loss, and with a judge greedy accuracy; appends a line for each step to `dev.jsonl` of the folder.

    Where the questions have no rationales there is no loss.

    Attributes:
      on: identifies the questions and how they are asked; trials compare only where it is equal.
      tried: results by step, those of earlier starts included.

    Raises:
      UserError: `config.path` is no data set, or damaged.
    """

    def __init__(
        self,
        config: DevConfig,
        data: DataConfig,
        folder: RunFolder,
        setup: Setup,
        judge: Judge | None,
        tried: dict[int, dict[str, Any]],
    ) -> None:
        self._folder, self._setup, self._judge, self.tried = folder, setup, judge, tried
        self._data = dataclasses.replace(data, path=config.path)
        self._has_loss = dataset.has_examples(config.path)
        if not self._has_loss:
            dataset.check(config.path)
        asked: dict[str, Any] = {"data": dataset.fingerprint(config.path)} if self._has_loss else {}
        if judge:
            file = storage.here(config.path) / "problems.jsonl"
            asked |= {
                "questions": config.questions,
                "max_new_tokens": config.max_new_tokens,
                "problems": digests.sha256([file] if file.is_file() else []),
            }
        self.on = checkpoint.lineage(**asked)

    def try_on(self, step: int, state: State, frozen: Any) -> dict[str, Any]:
        """Measures {loss?, accuracy?, on}; the loss is Σ weight · nll / Σ weight over all dev examples."""
        found: dict[str, Any] = {"loss": self._loss(state, frozen)} if self._has_loss else {}
        if self._judge:
            found["accuracy"] = self._judge({**frozen, self._setup.collection: state.trained})
        self.tried[step] = found | {"on": self.on}
        if jax.process_index() == 0:
            self._folder.append("dev.jsonl", json.dumps({"step": step} | self.tried[step]) + "\n")
            values = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
            print(f"dev at step {step}: {values}", flush=True)
        return self.tried[step]

    def _loss(self, state: State, frozen: Any) -> float:
        setup = self._setup
        sums = [
            jax.device_get(setup.score(state.trained, frozen, setup.put(rows)))
            for rows in batches.once(self._data, setup.rows)
        ]
        return float(sum(nll for nll, _ in sums) / max(sum(own["loss_tokens"] for _, own in sums), 1.0))
