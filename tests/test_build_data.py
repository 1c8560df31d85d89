"""The stage: one clear line for a mistake, the right files for the right flags, whole or nothing under kill -9."""

import contextlib
import dataclasses
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lema_jax import build_data, records, tasks
from lema_jax.data import dataset
from tests.data import rows

ARITHMETIC = ("--task=arithmetic", "--train_tokenizer=1000", "--limit=300", "--overlap=drop")


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "lema_jax.build_data", *flags]


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "LEMA_DATA"}
    return subprocess.run(command(*flags), capture_output=True, text=True, env=environment, check=False)


def content(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.long
def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    malformed = tmp_path / "corrections.jsonl"
    malformed.write_text(rows.correction().model_dump_json()[:-30] + "\n")
    out = f"--out={tmp_path / 'out'}"
    flags = {
        "error: --out is missing; folder of the data set to make": ["--task=arithmetic"],
        f"error: {malformed}:1: ": [*ARITHMETIC, "--arm=lema", f"--corrections={malformed}", out],
        "error: --corrections without --arm": [*ARITHMETIC, f"--corrections={malformed}", out],
        "--correction_share is of an equalised mix": ["--task=arithmetic", "--correction_share=0.5", out],
    }
    for expected, given in flags.items():
        result = run(*given)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        assert expected in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_what_it_makes_and_that_a_rerun_makes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = (*ARITHMETIC, f"--out={out}", "--equal_examples=100", "--dev_questions=20", "--export=jsonl,messages")
    first = run(*flags)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.endswith(f"wrote {out}\n")
    assert "100 examples (100 cot)" in first.stdout
    assert dataset.counts(out).examples == len(list(records.read(out / "examples.jsonl", records.Example))) == 100
    assert {"README.md", "card.json", "dataset_info.json", "tokenizer", "dev", "exports"} <= {
        p.name for p in out.iterdir()
    }
    before = content(out)
    again = run(*flags)
    assert again.returncode == 0
    assert "made of the same inputs; nothing to do" in again.stdout
    with_corrections = run(*flags, "--arm=cot", "--corrections=none.jsonl")  # an arm that has no use for them
    assert with_corrections.stdout.startswith("--arm=cot is chain of thought alone: the corrections are left out\n")
    assert "made of the same inputs; nothing to do" in with_corrections.stdout
    other = run(*flags, "--seed=1")
    assert other.returncode == 1
    assert "other settings or inputs (seed)" in other.stderr
    assert content(out) == before


@pytest.mark.long
def test_kill_9_leaves_nothing_or_a_whole_data_set(tmp_path: Path) -> None:
    started = time.monotonic()
    assert run(*ARITHMETIC, f"--out={tmp_path / 'undisturbed'}").returncode == 0
    whole, moments = time.monotonic() - started, random.Random(0)
    for number in range(5):
        out = tmp_path / f"killed{number % 2}"
        process = subprocess.Popen(command(*ARITHMETIC, f"--out={out}"), stdout=subprocess.DEVNULL)
        time.sleep(whole * moments.uniform(0.3, 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists() or content(out) == content(tmp_path / "undisturbed")
    for out in (tmp_path / "killed0", tmp_path / "killed1"):
        assert run(*ARITHMETIC, f"--out={out}").returncode == 0
        assert content(out) == content(tmp_path / "undisturbed")
        assert not out.with_name(f".{out.name}.tmp").exists()


@pytest.mark.slow
def test_a_dry_run_prints_examples_of_each_kind_and_writes_nothing(tmp_path: Path) -> None:
    of = tasks.get("arithmetic").load("train")[:40]
    wrong = [rows.attempt(problem) for problem in of]
    made = [rows.correction(one, answer=one.problem.gold) for one in wrong]
    records.write(tmp_path / "c.jsonl", made)
    recipe = {"task": "arithmetic", "train_tokenizer": 1000, "limit": 40, "overlap": "drop", "arm": "inline:0"}
    config = build_data.Config(
        **recipe, corrections=(tmp_path / "c.jsonl",), equal_examples=20, dry_run=True, out=tmp_path / "out"
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        result = build_data.run(config)
    said = printed.getvalue()
    assert [said.count(f"--- {kind} {number}: ") for kind in ("cot", "inline") for number in (1, 2, 3, 4)] == [
        1,
        1,
        1,
        0,
    ] * 2
    assert said.count(f"⟦{rows.STEPS[1]}⟧") == 3
    assert "20 examples (" in said
    assert not (tmp_path / "out").exists()
    again = build_data.run(dataclasses.replace(config, dry_run=False))
    assert again.card.kinds == result.card.kinds
    assert again.card.counts == result.card.counts
    assert again.card.left_out == result.card.left_out
