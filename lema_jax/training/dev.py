"""A run tried on held-out training questions at its checkpoints: dev.jsonl."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax

from lema_jax import storage
from lema_jax.data import batches
from lema_jax.training.config import TrainConfig
from lema_jax.training.program import Program
from lema_jax.training.step import State

Judge = Callable[[dict[str, Any]], float]  # share of dev questions that a model's variables answer right, greedily


class Dev:
    """Measures dev loss, and with a judge greedy accuracy, and writes a line of each to `out/dev.jsonl`."""

    def __init__(self, config: TrainConfig, program: Program, judge: Judge | None):
        self._config, self._program, self._judge = config, program, judge
        self._path = storage.place(config.out) / "dev.jsonl"

    def try_on(self, step: int, state: State, frozen: Any) -> dict[str, float]:
        """{loss, accuracy?} at this step; the loss is Σ weight · nll / Σ weight over all dev examples."""
        data = dataclasses.replace(self._config.data, path=self._config.dev.path)
        sums = [
            jax.device_get(self._program.score(state.trained, frozen, self._program.put(rows)))
            for rows in batches.once(data, self._program.rows)
        ]
        found = {"loss": float(sum(nll for nll, _ in sums) / max(sum(weight for _, weight in sums), 1.0))}
        if self._judge:
            found["accuracy"] = self._judge({**frozen, self._program.collection: state.trained})
        if jax.process_index() == 0:
            storage.append(self._path, json.dumps({"step": step} | found) + "\n")
            print(
                f"dev at step {step}: " + "  ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True
            )
        return found
