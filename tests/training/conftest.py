"""Tests share the programs of one shape: tracing and compiling them is most of a small run."""

import pytest

from lema_jax.training import setup


@pytest.fixture(autouse=True)
def _keep_programs(monkeypatch):
    monkeypatch.setattr(setup, "_KEPT", 1000)
