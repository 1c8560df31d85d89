"""Questions answered by several processes over loopback: one file, as one process writes it, whoever is killed when."""

import json
import signal
import time
from pathlib import Path

import pytest

from lema_jax import records
from lema_jax.data import tokenizer
from lema_jax.records import Attempt, Prediction, Verdict
from lema_jax.tasks import arithmetic
from tests import several, tiny

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    asked = [arithmetic.prompt(problem) for problem in arithmetic.load("test")[:50]]
    tokenizer.save(tokenizer.train_bpe(asked, tiny.CONFIG.vocab_size), root / "data" / "tokenizer")
    return tiny.model_folder(root / "model", root / "data")


EVALUATE = ("-m", "lema_jax.evaluate", "--task=arithmetic", "--limit=40", "--max_new_tokens=24", "--batch_size=8")
SAMPLE = ("-m", "lema_jax.sample", "--task=arithmetic", "--max_new_tokens=8", "--batch_size=8")


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    several.run(1, *EVALUATE, f"--checkpoint={model}", f"--out={out}")
    return out


def same(out: Path, alone: Path) -> bool:
    assert sorted(path.name for path in out.iterdir()) == ["predictions.jsonl", "summary.json"]
    return all((out / path.name).read_bytes() == path.read_bytes() for path in alone.iterdir())


@pytest.mark.parametrize(("count", "mesh"), [(2, []), (4, ["--fsdp=4"]), (2, ["--tensor=2", "--fsdp=2"])])
def test_processes_write_the_file_of_one(model, alone, tmp_path, count, mesh):
    """Also where the weights are cut over devices of several processes."""
    said = several.run(count, *EVALUATE, f"--checkpoint={model}", f"--out={tmp_path}", *mesh)
    assert same(tmp_path, alone)
    assert "40/40 answered" in said[0]
    assert "answered" not in "".join(said[1:])


def test_a_job_whose_process_is_lost_ends_and_goes_on_in_another_number_of_them(model, alone, tmp_path):
    given = (*EVALUATE, f"--checkpoint={model}", f"--out={tmp_path}")
    started = several.begin(2, *given)
    file = tmp_path / "predictions.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < 3:
        assert started[1].poll() is None
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=150)[0] for process in started]
    assert all(process.returncode for process in started), said
    kept = [row.id for row in records.read(file, Prediction, growing=True)]
    assert 3 <= len(kept) < 40
    before = file.read_bytes()
    several.run(4, *given)
    assert same(tmp_path, alone)
    assert all(line in file.read_bytes() for line in before.splitlines())


def test_what_a_later_round_samples_depends_on_all_answers_of_the_first(model, tmp_path):
    """Each process knows every answer, also those that were in the file before."""
    given = (*SAMPLE, "--limit=5", "--samples=1")
    more = ("--difficulty_weighted", "--max_samples=3")
    for name, count in (("one", 1), ("two", 2)):
        out = f"--out={tmp_path / name}.jsonl"
        several.run(1, *given, f"--checkpoint={model}", out)
        several.run(count, *given, f"--checkpoint={model}", *more, out)
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert len(list(records.read(tmp_path / "two.jsonl", Attempt))) == 15


def test_scores_are_those_of_one_process(model, tmp_path):
    attempts = tmp_path / "attempts.jsonl"
    given = (*SAMPLE, "--limit=4", "--samples=2")
    several.run(1, *given, f"--checkpoint={model}", f"--out={attempts}")
    verdicts = [{"verdict": verdict} for verdict in (Verdict.RIGHT, Verdict.WRONG)]  # as if one of each two were right
    rows = [row.model_copy(update=verdicts[row.sampling["sample"]]) for row in records.read(attempts, Attempt)]
    records.write(attempts, rows)
    score = ("-m", "lema_jax.evaluate", f"--checkpoint={model}", f"--score={attempts}", "--batch_size=8")
    several.run(1, *score, f"--out={tmp_path / 'one'}")
    several.run(2, *score, f"--out={tmp_path / 'two'}")
    read = lambda name: [json.loads(line) for line in (tmp_path / name / "scores.jsonl").read_text().splitlines()]
    for one, two in zip(read("one"), read("two"), strict=True):
        assert one | {"nll": 0} == two | {"nll": 0}
        assert one["nll"] == pytest.approx(two["nll"], rel=1e-5)
