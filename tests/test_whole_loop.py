"""Every door after the other, as a user calls them, on a model too small to learn: what is tested is that they fit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lema_jax import records
from lema_jax.records import Correction, Prediction

ROOT = Path(__file__).parents[1]


def door(name: str, *flags: str) -> str:
    """Runs a door in the project's folder and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"lema_jax.{name}", *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_questions_to_a_report(tmp_path):
    at = lambda name: str(tmp_path / name)
    door(
        "build_data",
        "--task=arithmetic",
        "--limit=300",
        "--overlap=drop",
        "--train_tokenizer=800",
        f"--out={at('data')}",
    )
    student = ["--config=configs/arithmetic_student.py", "--config.steps=60", "--config.data.batch_size=8"]
    small = ["--config.model.hidden_size=64", "--config.model.intermediate_size=64", "--config.model.num_layers=1"]
    paths = [f"--config.data.path={at('data')}", f"--config.out={at('student')}"]
    door("train", *student, *small, *paths, "--config.optimizer.learning_rate=0.01")

    sampling = [f"--checkpoint={at('student')}", "--task=arithmetic", "--max_new_tokens=64"]
    door("sample", *sampling, "--limit=40", f"--out={at('attempts.jsonl')}")
    before = Path(at("attempts.jsonl")).read_bytes()
    door("sample", *sampling, "--limit=40", f"--out={at('attempts.jsonl')}")
    assert Path(at("attempts.jsonl")).read_bytes() == before

    door("correct", f"--attempts={at('attempts.jsonl')}", f"--out={at('corrections.jsonl')}", "--teacher=reference")
    assert any(not row.rejected for row in records.read(at("corrections.jsonl"), Correction))

    for arm in ("cot", "lema"):
        made = [f"--tokenizer={at('student')}", f"--out={at('data_' + arm)}", "--limit=100", "--overlap=drop"]
        made += [f"--corrections={at('corrections.jsonl')}"] if arm == "lema" else []
        door("build_data", "--task=arithmetic", f"--arm={arm}", "--max_tokens=500", "--equal_examples=20", *made)
        paths = [f"--config.data.path={at('data_' + arm)}", f"--config.out={at(arm)}", f"--config.init={at('student')}"]
        door(
            "train",
            "--config=configs/arithmetic_arm.py",
            "--config.steps=2",
            "--config.data.batch_size=8",
            "--config.data.seq_len=512",
            *paths,
        )
        asked = ["--task=arithmetic", "--limit=12", "--max_new_tokens=48"]
        door("evaluate", f"--checkpoint={at(arm)}", *asked, f"--out={at('test_' + arm)}")
        assert json.loads((tmp_path / f"test_{arm}" / "summary.json").read_text())["n"] == 12

    cot, lema = (list(records.read(at(f"test_{arm}/predictions.jsonl"), Prediction)) for arm in ("cot", "lema"))
    assert [row.problem.id for row in cot] == [row.problem.id for row in lema]
    assert {row.checkpoint for row in cot}.isdisjoint({row.checkpoint for row in lema})
    told = door(
        "report", f"--runs={at('test_cot')},{at('test_lema')}", "--names=cot,lema", f"--out={at('report.html')}"
    )
    assert "lema" in told
    assert Path(at("report.html")).read_text().startswith("<!")
