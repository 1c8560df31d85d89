"""Every stage after the other, on a model too small to learn: as commands, and as functions of one process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lema_jax import records
from lema_jax.records import Correction, Prediction

ROOT = Path(__file__).parents[1]


def command(name: str, *flags: str) -> str:
    """Runs a command in the project's folder and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"lema_jax.{name}", *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_questions_to_a_report(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    at = lambda name: str(tmp_path / name)
    command(
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
    command("train", *student, *small, *paths, "--config.optimizer.learning_rate=0.01")

    sampling = [f"--checkpoint={at('student')}", "--task=arithmetic", "--max_new_tokens=64"]
    command("sample", *sampling, "--limit=40", f"--out={at('attempts.jsonl')}")
    before = Path(at("attempts.jsonl")).read_bytes()
    command("sample", *sampling, "--limit=40", f"--out={at('attempts.jsonl')}")
    assert Path(at("attempts.jsonl")).read_bytes() == before

    command("correct", f"--attempts={at('attempts.jsonl')}", f"--out={at('corrections.jsonl')}", "--teacher=reference")
    assert any(not row.rejected for row in records.read(at("corrections.jsonl"), Correction))

    for arm in ("cot", "lema"):
        made = [f"--tokenizer={at('student')}", f"--out={at('data_' + arm)}", "--limit=100", "--overlap=drop"]
        made += [f"--corrections={at('corrections.jsonl')}"] if arm == "lema" else []
        command("build_data", "--task=arithmetic", f"--arm={arm}", "--max_tokens=500", "--equal_examples=20", *made)
        paths = [f"--config.data.path={at('data_' + arm)}", f"--config.out={at(arm)}", f"--config.init={at('student')}"]
        command(
            "train",
            "--config=configs/arithmetic_arm.py",
            "--config.steps=2",
            "--config.data.batch_size=8",
            "--config.data.seq_len=512",
            *paths,
        )
        asked = ["--task=arithmetic", "--limit=12", "--max_new_tokens=48"]
        command("evaluate", f"--checkpoint={at(arm)}", *asked, f"--out={at('test_' + arm)}")
        assert json.loads((tmp_path / f"test_{arm}" / "summary.json").read_text())["n"] == 12

    cot, lema = (list(records.read(at(f"test_{arm}/predictions.jsonl"), Prediction)) for arm in ("cot", "lema"))
    assert [row.problem.id for row in cot] == [row.problem.id for row in lema]
    assert {row.checkpoint for row in cot}.isdisjoint({row.checkpoint for row in lema})
    printed = command(
        "report", f"--runs={at('test_cot')},{at('test_lema')}", "--names=cot,lema", f"--out={at('report.html')}"
    )
    assert "lema" in printed
    assert Path(at("report.html")).read_text().startswith("<!")
    assert not list((tmp_path / "temporary").iterdir())  # nothing is left behind


IN_ONE_PROCESS = """
import dataclasses, sys
from pathlib import Path
from lema_jax import build_data, correct, evaluate, report, sample, train
from lema_jax.model.config import LlamaConfig
from lema_jax.training.config import DataConfig, TrainConfig

root = Path(sys.argv[1])
task = {"task": "arithmetic", "overlap": "drop"}
build_data.run(build_data.Config(**task, limit=300, train_tokenizer=800, out=root / "data"))
shape = {"hidden_size": 64, "intermediate_size": 64}
llama = LlamaConfig(vocab_size=800, **shape, num_layers=1, num_heads=4, num_kv_heads=4, head_dim=16, max_positions=512)
first = TrainConfig(out=str(root / "student"), data=DataConfig(str(root / "data"), 8, 256), steps=60, model=llama)
first.optimizer.learning_rate = 0.01
trained = train.run(train.Config(config=first))
questions = sample.Questions(task="arithmetic", limit=40)
decoding = sample.Decoding(max_new_tokens=64)
where = {"checkpoint": root / "student", "out": root / "attempts.jsonl"}
sampled = sample.run(sample.Config(**where, questions=questions, decoding=decoding))
corrected = correct.run(correct.Config(attempts=root / "attempts.jsonl", out=root / "corrections.jsonl"))
for arm in ("cot", "lema"):
    mix = {"limit": 100, "equal_examples": 20, "corrections": [root / "corrections.jsonl"]}
    where = {"tokenizer": root / "student", "out": root / f"data_{arm}"}
    made = build_data.run(build_data.Config(**task, **mix, **where, arm=arm))
    data = DataConfig(str(made.out), 8, 512, packing=False)
    config = TrainConfig(out=str(root / arm), init=str(root / "student"), data=data, steps=2)
    train.run(train.Config(config=config))
    asked = {"task": ["arithmetic"], "limit": 12, "decoding": decoding}
    evaluate.run(evaluate.Config(checkpoint=[root / arm], out=root / f"test_{arm}", **asked))
page = report.run(report.Config(runs=[root / "test_cot", root / "test_lema"], out=root / "report.html"))
print("READ", trained.step, sampled.attempts, made.card.kinds, Path(root / "report.html").exists())
"""


@pytest.mark.slow
def test_the_stages_are_functions_of_one_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (read,) = (line for line in done.stdout.splitlines() if line.startswith("READ"))
    assert read.startswith("READ 60 40 ")
    assert read.endswith(" True")


@pytest.mark.slow
def test_a_study_of_real_stages(tmp_path):
    out, file = tmp_path / "study", tmp_path / "config.py"
    file.write_text(f"from tests.studies import small\ndef get_config():\n    return small({str(out)!r}, seeds=(0,))\n")
    printed = command("study", f"--config={file}")
    assert printed.count("done in") == 11
    content = json.loads((out / "study.json").read_text())
    assert {job["state"] for job in content["jobs"]} == {"done"}
    assert all(job["tokens"] > 0 for job in content["jobs"] if job["kind"] != "correct")
    assert content["tests"] == ["arithmetic/test"]
    kinds = {
        one["arm"]: json.loads((out / one["folder"] / "card.json").read_text())["kinds"] for one in content["data"]
    }
    assert kinds["cot"] == {"cot": 24}
    assert kinds["lema"]["correction"] == 7  # 28 % of 24
    assert "done in" not in command("study", f"--study={out}")
    assert "lema" in command("report", f"--study={out}", f"--out={tmp_path / 'page.html'}")
