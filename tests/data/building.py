"""A small task in place of all others, and corrections of it, for tests that build data sets."""

import types
from pathlib import Path
from typing import Any

import pytest

from lema_jax import records, tasks
from lema_jax.data.card import Card
from lema_jax.data.recipe import Recipe
from lema_jax.records import Example, Problem
from lema_jax.tasks import word_problems
from tests.data import rows

TRAIN = [rows.problem(number) for number in range(40)]
TEST = [
    rows.problem(number, split="test", question=f"Of {number} birds in {number + 7} trees 3 sing. How many do not?")
    for number in range(5)
]

Made = tuple[Card, bool]


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Problem]]:
    """A small task in place of all others; its splits may be changed."""
    splits = {"train": list(TRAIN), "test": list(TEST)}
    fake = types.SimpleNamespace(
        SPLITS=("train", "test"),
        load=lambda split, data_dir=None: splits[split],
        prompt=word_problems.prompt,
        completion=word_problems.completion,
        extract=word_problems.extract,
    )
    monkeypatch.setattr(tasks, "NAMES", ("gsm8k",))
    monkeypatch.setattr(tasks, "get", lambda name: fake)
    return splits


@pytest.fixture
def corrections(tmp_path: Path) -> Path:
    """Corrections of 30 attempts at training questions."""
    path = tmp_path / "corrections.jsonl"
    records.write(path, [rows.correction(rows.attempt(problem)) for problem in TRAIN[:30]])
    return path


def recipe(**fields: Any) -> Recipe:
    return Recipe(**{"task": "gsm8k", "train_tokenizer": 900, **fields})


def texts(folder: Path) -> list[Example]:
    return list(records.read(folder / "examples.jsonl", Example))
