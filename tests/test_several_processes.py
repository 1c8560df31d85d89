"""Questions answered by several processes over loopback: one file, as one process writes it, whoever is killed when."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lema_jax import records
from lema_jax.data import tokenizer
from lema_jax.records import Attempt, Prediction, Verdict
from lema_jax.tasks import arithmetic
from tests import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    asked = [arithmetic.prompt(problem) for problem in arithmetic.load("test")[:50]]
    tokenizer.save(tokenizer.train_bpe(asked, tiny.CONFIG.vocab_size), root / "data" / "tokenizer")
    return tiny.model_folder(root / "model", root / "data")


def begin(count: int, door: str, *given: object) -> list[subprocess.Popen]:
    """A door in `count` processes that share eight devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(8 // count)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    told = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"] if count > 1 else []
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", f"lema_jax.{door}", *map(str, given), *told),
                *([f"--process={index}"] if told else []),
            ],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def run(count: int, door: str, *given: object) -> list[str]:
    processes = begin(count, door, *given)
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, said
    return said


EVALUATE = ("--task=arithmetic", "--limit=40", "--max_new_tokens=24", "--batch_size=8")


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    run(1, "evaluate", f"--checkpoint={model}", *EVALUATE, f"--out={out}")
    return out


def same(out: Path, alone: Path) -> bool:
    assert sorted(path.name for path in out.iterdir()) == ["predictions.jsonl", "summary.json"]
    return all((out / path.name).read_bytes() == path.read_bytes() for path in alone.iterdir())


@pytest.mark.parametrize(("count", "mesh"), [(2, []), (4, ["--fsdp=4"]), (2, ["--tensor=2", "--fsdp=2"])])
def test_processes_write_the_file_of_one(model, alone, tmp_path, count, mesh):
    """Also where the weights are cut over devices of several processes."""
    said = run(count, "evaluate", f"--checkpoint={model}", *EVALUATE, f"--out={tmp_path}", *mesh)
    assert same(tmp_path, alone)
    assert "40/40 answered" in said[0]
    assert "answered" not in "".join(said[1:])


def test_a_job_whose_process_is_lost_ends_and_goes_on_in_another_number_of_them(model, alone, tmp_path):
    given = ("evaluate", f"--checkpoint={model}", *EVALUATE, f"--out={tmp_path}")
    started = begin(2, *given)
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
    run(4, *given)
    assert same(tmp_path, alone)
    assert all(line in file.read_bytes() for line in before.splitlines())


def test_what_a_later_round_samples_depends_on_all_answers_of_the_first(model, tmp_path):
    """Each process knows every answer, also those that were in the file before."""
    given = ("--task=arithmetic", "--limit=5", "--samples=1", "--max_new_tokens=8", "--batch_size=8")
    more = ("--difficulty_weighted", "--max_samples=3")
    for name, count in (("one", 1), ("two", 2)):
        out = f"--out={tmp_path / name}.jsonl"
        run(1, "sample", f"--checkpoint={model}", *given, out)
        run(count, "sample", f"--checkpoint={model}", *given, *more, out)
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert len(list(records.read(tmp_path / "two.jsonl", Attempt))) == 15


def test_scores_are_those_of_one_process(model, tmp_path):
    attempts = tmp_path / "attempts.jsonl"
    given = ("--task=arithmetic", "--limit=4", "--samples=2", "--max_new_tokens=8", "--batch_size=8")
    run(1, "sample", f"--checkpoint={model}", *given, f"--out={attempts}")
    verdicts = [{"verdict": verdict} for verdict in (Verdict.RIGHT, Verdict.WRONG)]  # as if one of each two were right
    rows = [row.model_copy(update=verdicts[row.sampling["sample"]]) for row in records.read(attempts, Attempt)]
    records.write(attempts, rows)
    score = ("evaluate", f"--checkpoint={model}", f"--score={attempts}", "--batch_size=8")
    run(1, *score, f"--out={tmp_path / 'one'}")
    run(2, *score, f"--out={tmp_path / 'two'}")
    read = lambda name: [json.loads(line) for line in (tmp_path / name / "scores.jsonl").read_text().splitlines()]
    for one, two in zip(read("one"), read("two"), strict=True):
        assert one | {"nll": 0} == two | {"nll": 0}
        assert one["nll"] == pytest.approx(two["nll"], rel=1e-5)
