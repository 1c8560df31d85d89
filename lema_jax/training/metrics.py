"""What a run says of itself: metrics.jsonl and the progress line."""

import datetime
import json
import time
from pathlib import Path

import jax


class Metrics:
    """metrics.jsonl and the progress line. Lines past the step that a run resumes at are dropped: they come again."""

    def __init__(self, out: Path, first: int, last: int):
        self._path, self._last = out / "metrics.jsonl", last
        self._step, self._since = first, time.monotonic()
        before = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in before if line.endswith("}") and json.loads(line)["step"] <= first]
        self._path.write_text("".join(line + "\n" for line in kept))

    def __enter__(self) -> "Metrics":
        self._file = open(self._path, "a")
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def write(self, step: int, metrics: list[dict[str, jax.Array]]) -> None:
        """One line for the steps since the last one: loss over all their tokens, speed over all their time."""
        rows = jax.device_get(metrics)
        now = time.monotonic()
        seconds = (now - self._since) / len(rows)
        weight = sum(row["loss_tokens"] for row in rows)
        line = {
            "step": step,
            "loss": float(sum(row["loss"] * row["loss_tokens"] for row in rows) / max(weight, 1)),
            "grad_norm": float(rows[-1]["grad_norm"]),
            "learning_rate": float(rows[-1]["learning_rate"]),
            "tokens": int(sum(row["tokens"] for row in rows)),
            "seconds_per_step": seconds,
            "tokens_per_second": float(sum(row["tokens"] for row in rows) / (now - self._since)),
        }
        self._since = now
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        left = datetime.timedelta(seconds=round(seconds * (self._last - step)))
        print(
            f"step {step}/{self._last}  loss {line['loss']:.4f}  grad {line['grad_norm']:.3f}  "
            f"lr {line['learning_rate']:.2e}  {line['tokens_per_second']:,.0f} tokens/s  left {left}",
            flush=True,
        )
