"""A study on a cluster and on clouds: its waves in order, against stand-ins (see cloud.py)."""

from pathlib import Path

import pytest
import yaml

from tests.launch.test_launch import LAUNCH, World

WAVES = "aa\nbb cc\ndd\n"
FLAGS = ["--", "--config=configs/study_arithmetic.py", "--config.out=/shared/it's here"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """With a Python that knows the study's waves, and otherwise notes what it is to run and ends with CODE."""
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
case "$*" in *--waves) cat {tmp_path}/waves; exit 0 ;; esac
echo "$*" >> {tmp_path}/ran
exit "${{CODE:-0}}"
"""
    )
    python.chmod(0o755)
    (tmp_path / "waves").write_text(WAVES)
    monkeypatch.setenv("PYTHON", str(python))
    return World(tmp_path)


def test_slurm_gets_an_array_for_each_wave(world: World) -> None:
    done = world.run("study_slurm.sh", "--sbatch=--gpus=1,--time=4:00:00", *FLAGS)
    assert done.returncode == 0, done.stderr
    first, second, third, report = world.calls()
    common = "sbatch --parsable --job-name=lema-study"
    assert first.startswith(f"{common} --array=0-0 --gpus=1 --time=4:00:00 launch/study_slurm.sh aa --config=")
    assert second.startswith(f"{common} --array=0-1 --dependency=afterany:101 --gpus=1")
    assert "launch/study_slurm.sh bb cc --config=configs/study_arithmetic.py --config.out=/shared/it's here" in second
    assert "--dependency=afterany:102" in third
    assert "--dependency=afterany:103" in report
    assert r"--config.out=/shared/it\'s\ here" in report


def test_slurm_submits_nothing_in_a_dry_run(world: World) -> None:
    done = world.run("study_slurm.sh", "--dry_run", *FLAGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sbatch ") == 4
    assert world.calls() == []


def test_slurm_reports_what_is_done(world: World, tmp_path: Path) -> None:
    (tmp_path / "waves").write_text("\n")
    assert world.run("study_slurm.sh", *FLAGS).returncode == 0
    (report,) = world.calls()
    assert "--wrap=" in report
    assert "--dependency" not in report


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (42, True)])
def test_a_task_of_an_array_runs_its_job(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, requeued: bool
) -> None:
    for name, value in {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "9", "CODE": str(code)}.items():
        monkeypatch.setenv(name, value)
    assert world.run("study_slurm.sh", "bb cc", *FLAGS[1:]).returncode == code
    assert (tmp_path / "ran").read_text().endswith("--config.out=/shared/it's here --job=cc\n")
    assert ("scontrol requeue 9_1" in world.calls()) is requeued


@pytest.mark.slow
def test_sky_gets_a_job_for_each_and_waits_for_a_wave(world: World) -> None:
    world.set(queues=["1 study-aa RUNNING", "1 study-aa SUCCEEDED\n2 other RUNNING"])
    done = world.run("study_sky.sh", "--bucket=gs://b/s", "--sky=--gpus=A100:1", *FLAGS)
    assert done.returncode == 0, done.stderr
    calls = world.calls()
    launched = [call for call in calls if "launch" in call]
    assert [call.partition("--name=")[2].split()[0] for call in launched] == [
        "study-aa",
        "study-bb",
        "study-cc",
        "study-dd",
        "study-report",
    ]
    assert calls[1] == calls[2] == "sky jobs queue"  # the first wave ran still when it was asked
    assert "study-bb" in calls[3]
    assert "--gpus=A100:1 --env=BUCKET=gs://b/s --env=FLAGS=--config=configs/study_arithmetic.py" in launched[1]
    assert "--job=bb" in launched[1]
    assert "--job=" not in launched[-1]


def test_sky_launches_nothing_in_a_dry_run_or_without_a_bucket(world: World) -> None:
    assert world.run("study_sky.sh", "--dry_run", "--bucket=gs://b", *FLAGS).returncode == 0
    missing = world.run("study_sky.sh", *FLAGS)
    assert (missing.returncode, world.calls()) == (2, [])
    assert "--bucket is missing" in missing.stderr


def test_a_sky_job_begins_again_on_the_same_code() -> None:
    job = yaml.safe_load((LAUNCH / "study_sky.yaml").read_text())
    assert job["resources"]["job_recovery"]["recover_on_exit_codes"] == [42]
    assert job["run"].startswith("bash launch/again.sh .venv/bin/python -m lema_jax.study")
