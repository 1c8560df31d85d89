"""The report door, run as a user runs it."""

import subprocess
import sys

import made_runs
import pytest


def report(*flags):
    return subprocess.run([sys.executable, "-m", "lema_jax.report", *flags], capture_output=True, text=True)


def fails(*flags):
    done = report(*flags)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [made_runs.write_letters(root / name, v) for name, v in (("cot", "rwwwu" * 20), ("lema", "rrwwt" * 20))]


def test_one_table_one_sentence_and_answers_to_read(folders):
    done = report(f"--runs={folders[0]},{folders[1]}", "--show=2")
    assert done.returncode == 0, done.stderr
    table, sentence, *shown = done.stdout.split("\n\n")
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["cot", "lema"]
    assert "lema answers 20.0 points more of the 100 questions right than cot" in sentence
    assert len(shown) == 2
    assert all(text.startswith("── fixed: arithmetic/test/") for text in shown)


def test_baseline_and_names_turn_the_comparison_round(folders):
    done = report(f"--runs={folders[0]},{folders[1]}", "--names=A,B", "--baseline=B", "--show=0")
    assert "A answers 20.0 points fewer of the 100 questions right than B" in done.stdout
    assert "──  " in done.stdout
    assert "fixed" not in done.stdout


def test_user_mistakes_get_one_clear_line(folders, tmp_path):
    assert "--runs=folder" in fails()
    assert "for 2 --runs" in fails(f"--runs={folders[0]},{folders[1]}", "--names=a")
    assert "none of the runs: cot" in fails(f"--runs={folders[0]}", "--baseline=x")
    assert "cannot read" in fails(f"--runs={tmp_path / 'nowhere'}")
    assert "unexpected argument" in fails(f"--runs={folders[0]},", str(folders[1]))
    other = made_runs.write_letters(tmp_path / "other", "rrr")
    assert "97 only in" in fails(f"--runs={folders[0]},{other}")
