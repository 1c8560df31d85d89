"""Data from a file of one's own, as the README shows it: questions and golds, the rest from the student's attempts."""

import json
from pathlib import Path

import pytest

from lema_jax import records, tasks
from lema_jax.data import card, dataset
from lema_jax.data.build import build
from lema_jax.data.card import Card
from lema_jax.data.encode import Limits
from lema_jax.data.recipe import Recipe
from lema_jax.errors import UserError
from tests.data import rows


def made_of(tmp_path: Path, *more: dict[str, object], **fields: object) -> Card:
    """The card of the data set `tmp_path/out`, built of right attempts at 30 questions in a file that has `more`."""
    own = [{"question": f"Ann has {n} boxes of {n + 2} pens. How many?", "gold": n * (n + 2)} for n in range(2, 32)]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*own, *more]))
    task = f"jsonl:{file}"
    problems = tasks.get(task).load("train")
    attempts = [rows.attempt(problem, f"The answer is {problem.gold}.", "right") for problem in problems]
    records.write(tmp_path / "attempts.jsonl", attempts)
    given = {"train_tokenizer": 704, "gold_rationales": False, "attempts": (tmp_path / "attempts.jsonl",)}
    return build(Recipe(task=task, **{**given, **fields}), tmp_path / "out")[0]


@pytest.fixture(autouse=True)
def no_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "NAMES", ())


def test_rows_without_a_split_are_trained_on(tmp_path: Path) -> None:
    made = made_of(tmp_path, dev_questions=5)
    assert made.questions == 25
    assert made.overlap["found"] == 0


def test_dev_questions_without_a_rationale_are_counted_and_have_no_examples(tmp_path: Path) -> None:
    made = made_of(tmp_path, dev_questions=5)
    assert made.left_out["dev loss"] == [["without a rationale", 5], ["over-long", 0]]
    assert "dev loss: left out 5 without a rationale" in card.summary(made)
    dev = tmp_path / "out" / "dev"
    assert [file.name for file in dev.iterdir()] == ["problems.jsonl"]
    assert not dataset.has_examples(dev)


def test_rows_that_name_a_split_are_kept_out_of_training(tmp_path: Path) -> None:
    given_away = {"question": "Ann has 7 boxes of 9 pens. How many?", "gold": 63, "split": "valid"}
    with pytest.raises(UserError, match=r"overlap .*own/train/5 with own/valid/30; the first"):
        made_of(tmp_path, given_away)


def test_a_test_in_another_file_is_kept_out_of_training(tmp_path: Path) -> None:
    """Also where its rows name no split."""
    (tmp_path / "test.jsonl").write_text('{"question": "Bo has 7 boxes of 9 pens. How many?", "gold": 63}\n')
    tests = (f"jsonl:{tmp_path / 'test.jsonl'}",)
    with pytest.raises(UserError, match=r"overlap .*own/train/5 with test/test/0; the first"):
        made_of(tmp_path, tests=tests)
    made = made_of(tmp_path, tests=tests, overlap="drop")
    assert (made.questions, made.overlap["checked"]) == (29, {f"{tests[0]}/test": 1})
    with pytest.raises(UserError, match="--tests=gsm8k: name tasks of your own"):
        made_of(tmp_path, tests=("gsm8k",))


def test_what_left_nothing_is_what_is_to_be_mended(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"30 over-long; 0 left\); raise --max_tokens"):
        made_of(tmp_path, limits=Limits(None, None, 8))
