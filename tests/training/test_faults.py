"""What goes wrong around a run: ill numbers, notices to stop, damaged files, full disks."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from lema_jax import checkpoint, disk, interrupts
from lema_jax.errors import UserError
from lema_jax.interrupts import Interrupted
from lema_jax.training import dry_run, loop, setup
from lema_jax.training.config import GuardConfig
from lema_jax.training.metrics import Metrics
from lema_jax.training.setup import Setup
from tests import tiny
from tests.training import preempting
from tests.training.test_loop import LORA, assert_equal, base, config, data, losses, weights

__all__ = ["base", "data"]  # fixtures


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data, base) -> Path:
    """An undisturbed run of adapters: 6 steps, checkpoints at 2, 4 and 6."""
    out = tmp_path_factory.mktemp("straight") / "run"
    loop.run(config(out, data, init=str(base), lora=LORA))
    return out


def adapters(out: Path, data: Path, base: Path, **fields):
    return config(out, data, init=str(base), lora=LORA, **fields)


@pytest.mark.slow
def test_an_ill_step_stops_the_run_and_what_was_saved_is_whole(tmp_path, data, base):
    run = adapters(tmp_path / "run", data, base, guard=GuardConfig(max_grad_norm=1e-9))
    with pytest.raises(UserError, match=r"step 1: loss .*its update was skipped\. Its examples: lines \d+, .*jsonl"):
        loop.run(run)
    assert checkpoint.steps(tmp_path / "run") == []
    run.guard.skip_steps = 2
    with pytest.raises(UserError, match="step 3: "):
        loop.run(run, allow_config_change=True)


@pytest.mark.slow
def test_ill_steps_may_be_passed_over(tmp_path, data, base, capsys):
    run = adapters(tmp_path / "run", data, base, guard=GuardConfig(max_grad_norm=1e-9, skip_steps=6))
    loop.run(run)
    assert capsys.readouterr().err.count("its update was skipped") == 6
    assert not any(np.any(leaf) for leaf in [weights(tmp_path / "run")["lora"]["layers"]["mlp"]["up"]["b"]])


@pytest.mark.slow
def test_a_notice_to_stop_saves_and_the_run_goes_on_bit_equal(tmp_path, data, base, straight, monkeypatch):
    preempting.after(monkeypatch, 2)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="saved at step 3 of 6"):
        loop.run(adapters(tmp_path / "run", data, base))
    assert signal.getsignal(signal.SIGTERM) is before
    assert checkpoint.latest_step(tmp_path / "run") == 3
    monkeypatch.undo()
    loop.run(adapters(tmp_path / "run", data, base))
    assert_equal(weights(tmp_path / "run"), weights(straight))
    assert losses(tmp_path / "run") == losses(straight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "damage"),
    [
        ("weights/d", "truncated"),
        pytest.param("weights/d", "overwritten", marks=pytest.mark.long),
        pytest.param("_METADATA", "emptied", marks=pytest.mark.long),
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path, data, base, straight, where, damage, capsys
):
    out = tmp_path / "run"
    loop.run(adapters(out, data, base))
    files = [p for p in (out / "checkpoints" / "6").rglob("*") if p.is_file() and where in str(p)]
    assert files
    for file in files:
        size = file.stat().st_size
        content = {"truncated": file.read_bytes()[: size // 2], "emptied": b"", "overwritten": b"\x5a" * size}
        file.write_bytes(content[damage])
    loop.run(adapters(out, data, base))
    said = capsys.readouterr()
    assert "warning: checkpoint" in said.err
    assert "checkpoints/6 is damaged" in said.err
    assert "going on from step 4" in said.out
    assert len(list((out / "checkpoints").glob("6.damaged-*"))) == 1
    assert_equal(weights(out), weights(straight))


@pytest.mark.slow
def test_only_damaged_checkpoints_are_an_error(tmp_path, data, base):
    out = tmp_path / "run"
    loop.run(adapters(out, data, base, steps=2))
    for file in (p for p in (out / "checkpoints" / "2").rglob("*") if p.is_file()):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the checkpoints \[2\] .* can be read"):
        loop.run(adapters(out, data, base, steps=2))


@pytest.mark.slow
def test_a_full_disk_is_said_plainly(tmp_path, data, base, monkeypatch):
    def full(self, step, metrics):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Metrics, "write", full)
    with pytest.raises(OSError, match="No space left") as raised:
        loop.run(adapters(tmp_path / "run", data, base))
    line = disk.explain(raised.value, tmp_path / "run")  # what the command prints
    assert str(tmp_path / "run") in line
    assert "make room" in line


@pytest.mark.slow
def test_dev_is_tried_at_checkpoints_and_the_best_is_kept(tmp_path, data, base):
    run = adapters(tmp_path / "run", data, base, keep=1)
    run.dev.path, run.dev.questions = str(data), 1
    merits = iter([0.5, 0.75, 0.25])
    loop.run(run, judge=lambda metadata, mesh: lambda variables: next(merits))
    tried = [json.loads(line) for line in (tmp_path / "run" / "dev.jsonl").read_text().splitlines()]
    assert [(one["step"], one["accuracy"]) for one in tried] == [(2, 0.5), (4, 0.75), (6, 0.25)]
    assert tried[-1]["loss"] < tried[0]["loss"]
    assert checkpoint.steps(tmp_path / "run") == [4, 6]
    assert checkpoint.best_step(tmp_path / "run") == 4


@pytest.mark.slow
def test_dev_loss_is_the_mean_over_its_examples_however_they_lie_in_rows(tmp_path, data, base):
    found = []
    for packing in (True, False):
        run = adapters(tmp_path / str(packing), data, base, steps=1)
        run.dev.path, run.data.packing = str(data), packing
        run.guard = GuardConfig(max_grad_norm=1e-9, skip_steps=1)  # no update: both are tried on the same weights
        loop.run(run)
        found.append(json.loads((tmp_path / str(packing) / "dev.jsonl").read_text())["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_every_start_is_recorded(tmp_path, data, base, straight):
    (started,) = [json.loads(line) for line in (straight / "starts.jsonl").read_text().splitlines()]
    assert started["from_step"] == 0
    assert started["packages"]["jax"]
    assert isinstance(started["compile_seconds"], float)


@pytest.mark.slow
def test_another_run_of_the_process_traces_and_compiles_no_step(tmp_path, data, base, straight, monkeypatch):
    lowered = mock.Mock(side_effect=AssertionError("lowered"))
    monkeypatch.setattr(Setup, "lowered_step", lowered)
    loop.run(adapters(tmp_path / "run", data, base, seed=7))
    started = json.loads((tmp_path / "run" / "starts.jsonl").read_text())
    assert started["compile_seconds"] == 0
    monkeypatch.setattr(setup, "_kept", {})
    with pytest.raises(AssertionError, match="lowered"):
        loop.run(adapters(tmp_path / "other", data, base))


@pytest.mark.long
def test_what_watches_a_run_changes_nothing_of_it(tmp_path, data, base, straight):
    out = tmp_path / "run"
    loop.run(adapters(out, data, base, tensorboard=True), profile=str(tmp_path / "trace"))
    assert losses(out) == losses(straight)
    (events,) = (out / "tensorboard").iterdir()
    assert b"grad_norm" in events.read_bytes()
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_a_watcher_that_is_not_installed_is_named(tmp_path, data, base, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="wandb is set, but the package wandb is missing; pip install wandb"):
        loop.run(adapters(tmp_path / "run", data, base, wandb="lema"))


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(tmp_path, data, base, capsys):
    dry_run.show(adapters(tmp_path / "run", data, base))
    said = capsys.readouterr().out
    assert "parameters: 3,712 trained, 60,576 frozen" in said
    assert "a device: " in said
    assert "6 steps of 256 tokens" in said
    assert "\033[1;32m" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_length_in_epochs(tmp_path, data, base):
    run = adapters(tmp_path / "run", data, base, steps=0, epochs=2.0)
    run.data.packing = False
    loop.run(run)
    assert checkpoint.latest_step(tmp_path / "run") == 10  # 2 × 40 examples, 8 a step


@pytest.mark.long
def test_the_door_exits_with_the_code_that_a_launcher_runs_again_on(tmp_path, data, base):
    (tmp_path / "config.py").write_text(
        "from pathlib import Path\nfrom tests.training.test_loop import config\n"
        "from lema_jax.model.config import LoraConfig\n"
        f"def get_config():\n    return config(Path({str(tmp_path / 'run')!r}), Path({str(data)!r}),\n"
        f"        init={str(base)!r}, lora=LoraConfig(4), steps=5000, checkpoint_every=5000)\n"
    )
    command = [sys.executable, "-m", "lema_jax.train", f"--config={tmp_path / 'config.py'}"]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 3/"):
            process.send_signal(signal.SIGTERM)
            break
    _, said = process.communicate(timeout=120)
    assert process.returncode == interrupts.PREEMPTED
    assert "the same command goes on from there" in said
    assert checkpoint.latest_step(tmp_path / "run") >= 3
    assert checkpoint.read_metadata(tmp_path / "run").config == tiny.CONFIG
