"""A run tried on held-out training questions at its checkpoints: dev.jsonl."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax

from lema_jax import checkpoint, digests, storage
from lema_jax.data import batches, dataset
from lema_jax.training.config import TrainConfig
from lema_jax.training.program import Program
from lema_jax.training.step import State

Judge = Callable[[dict[str, Any]], float]  # share of dev questions that a model's variables answer right, greedily


class Dev:
    """Measures dev loss, and with a judge greedy accuracy, and writes a line of each to `out/dev.jsonl`.

    Attributes:
      on: names what is asked, and how: trials on other questions do not compare.
      tried: how steps did, by step.

    Raises:
      UserError: `dev.path` is no data set.
    """

    def __init__(self, config: TrainConfig, program: Program, judge: Judge | None):
        self._config, self._program, self._judge = config, program, judge
        self._data = dataclasses.replace(config.data, path=config.dev.path)
        self._path = storage.place(config.out) / "dev.jsonl"
        asked: dict[str, Any] = {}
        if judge:
            (problems,) = digests.sha256([storage.here(config.dev.path) / "problems.jsonl"])
            asked |= {"questions": config.dev.questions, "max_new_tokens": config.dev.max_new_tokens}
            asked |= {"problems": problems}
        self.tried = checkpoint.trials(config.out) if checkpoint.steps(config.out) else {}
        self.on = checkpoint.lineage(data=dataset.fingerprint(config.dev.path), **asked)

    def try_on(self, step: int, state: State, frozen: Any) -> dict[str, Any]:
        """{loss, accuracy?, on} at this step; the loss is Σ weight · nll / Σ weight over all dev examples."""
        sums = [
            jax.device_get(self._program.score(state.trained, frozen, self._program.put(rows)))
            for rows in batches.once(self._data, self._program.rows)
        ]
        found: dict[str, Any] = {
            "loss": float(sum(nll for nll, _ in sums) / max(sum(weight for _, weight in sums), 1.0))
        }
        if self._judge:
            found["accuracy"] = self._judge({**frozen, self._program.collection: state.trained})
        self.tried[step] = found | {"on": self.on}
        if jax.process_index() == 0:
            storage.append(self._path, json.dumps({"step": step} | self.tried[step]) + "\n")
            print(
                f"dev at step {step}: " + "  ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True
            )
        return self.tried[step]
