import itertools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lema_jax.model import flops
from lema_jax.model.config import Compute
from lema_jax.parallel.chips import CHIPS
from lema_jax.storage import RunFolder
from lema_jax.training import loop, metrics
from tests import tiny
from tests.training import test_loop

WORK = flops.Step(tiny.CONFIG, Compute(), tiny.LORA, rows=8, length=32)
NUMBERS = {
    "loss": 1.0,
    "grad_norm": 1.0,
    "learning_rate": 1e-4,
    "loss_tokens": 100.0,
    "tokens": 200.0,
    "computed": 256.0,
}


def lines(out) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("chip", CHIPS.values())
@pytest.mark.parametrize("count", [1, 8])
def test_a_step_at_the_peak_takes_its_flops_over_that_of_all_devices(chip, count):
    devices = [SimpleNamespace(device_kind=chip.kind)] * count
    assert metrics.ideal_seconds(WORK, devices) == pytest.approx(flops.model_flops(WORK) / (chip.flops * count))


def test_mfu_is_the_share_of_the_seconds_that_the_peak_would_take(tmp_path, monkeypatch, capsys):
    clock = itertools.accumulate([0.0, 2.0, 4.0, 8.0, 2.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with metrics.Metrics(RunFolder(tmp_path), 0, 4, log_every=2, batch_tokens=8 * 32, ideal=1.0) as log:
        for step in range(1, 5):
            computed = {"computed": 256.0 if step <= 2 else 128.0}  # then half of the rows are empty
            log.write(step, {name: np.float32(value) for name, value in (NUMBERS | computed).items()})
    assert [line["mfu"] for line in lines(tmp_path)] == [1 / 2, 1 / 4, 1 / 16, 1 / 4]
    shown = [line.split("MFU ")[1].split()[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["33.3%", "10.0%"]  # two steps of 6 seconds, two of 10


@pytest.mark.slow
def test_a_cpu_has_no_peak_and_no_mfu(tmp_path, capsys):
    data = tiny.data_set(tmp_path / "set")
    loop.run(test_loop.config(tmp_path / "run", data, model=tiny.CONFIG, steps=4))
    assert metrics.ideal_seconds(WORK, jax.devices()) is None
    assert not any("mfu" in line for line in lines(tmp_path / "run"))
    out = capsys.readouterr().out
    assert "tokens/s" in out
    assert "MFU" not in out
