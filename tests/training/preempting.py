"""Preempts a training run at a known moment."""

import os
import signal

import pytest

from lema_jax.training.metrics import Metrics


def after(monkeypatch: pytest.MonkeyPatch, wanted: int) -> None:
    """Sends SIGTERM when step `wanted` is written, while the next one is in flight."""
    written = Metrics.write

    def write(self, step, metrics):
        written(self, step, metrics)
        if step == wanted:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Metrics, "write", write)
