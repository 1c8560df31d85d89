import dataclasses
import functools
from types import SimpleNamespace

import pytest

from lema_jax.ahead import programs, search
from lema_jax.ahead.compiler import Memory
from lema_jax.ahead.cost import Cost
from lema_jax.ahead.estimate import Bracket
from lema_jax.ahead.memory import OutOfMemory
from lema_jax.ahead.report import Report
from lema_jax.errors import UserError
from lema_jax.model import presets
from lema_jax.parallel import chips
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training import paper
from lema_jax.training.config import validate

CONFIG = paper.qlora("llama2-70b", "gsm8k")


def layout(config) -> tuple[int, str, int]:
    rows = config.data.batch_size // (config.mesh.data * config.mesh.fsdp * config.accumulation)
    return config.mesh.tensor, config.compute.remat, rows


def report(seconds: float, peak: int, **layout) -> Report:
    return Report(
        "train_step",
        chips.named("v5e-8"),
        layout,
        [],
        96 * 1024,
        memory=Memory(0, 0, 0, 0, 0, peak),
        cost=Cost(roof_s=seconds, hybrid_s=seconds, collectives=()),
        estimate=Bracket(seconds, seconds, seconds, seconds, 0.0),
    )


@pytest.mark.parametrize(("count", "slices"), [(8, 1), (64, 1), (64, 2), (256, 4)])
def test_every_candidate_holds_together_and_does_the_same_steps(count, slices):
    found = list(search.candidates(CONFIG, 8, count, slices))
    assert found
    for candidate in found:
        validate(candidate, count)
        assert candidate.mesh.data == slices
        assert candidate.data == CONFIG.data
    assert len({layout(one) for one in found}) == len(found)


def walked(monkeypatch, outcome, model="llama-2-70b") -> tuple[list, list[str], list[Report]]:
    """What a search tries, tells and reports when `outcome` stands for the compiler."""
    tried, told = [], []

    def compiled(job, config):
        tried.append(layout(config))
        return outcome(*layout(config))

    monkeypatch.setattr(programs, "train_step", compiled)
    where = chips.named("v5e-8")
    job = SimpleNamespace(slice=where, devices=[None] * where.chips, llama=presets.get(model))
    return tried, told, list(search.run(job, CONFIG, told.append))


def test_what_cannot_fit_is_not_compiled(monkeypatch):
    def outcome(tensor, remat, rows):
        room = 16e9 if tensor == 8 else 3e9 * rows * (2 if remat == "dots" else 1)
        made = report(1.0, int(room), tensor=tensor)
        if room > 5e9:
            return Report("train_step", made.slice, {}, [], 1, shortage=OutOfMemory(room, 5e9, []))
        return made

    tried, told, reports = walked(monkeypatch, outcome)
    for tensor in (1, 2, 4):
        assert [(remat, rows) for one, remat, rows in tried if one == tensor] == [("full", 1), ("dots", 1), ("full", 2)]
    assert [one for one in tried if one[0] == 8] == [(8, "full", 1)]
    assert len(told) - 1 == len(reports) == len(tried)
    assert [line.split()[0] for line in told[1:3]] == ["1", "2"]


def test_a_mesh_that_does_not_divide_the_model_is_logged_and_skipped(monkeypatch):
    def outcome(tensor, remat, rows):
        if tensor == 2:
            raise UserError("cannot lay the model out")
        return report(1.0, 1)

    tried, told, reports = walked(monkeypatch, outcome)
    assert [one for one in tried if one[0] == 2] == [(2, "full", 1)]
    assert [line for line in told if "cannot lay" in line] == ["  7  fsdp 4, tensor 2: cannot lay the model out"]
    assert len(reports) == len(tried) - 1


def test_a_batch_without_a_row_for_each_chip(monkeypatch):
    monkeypatch.setattr(CONFIG.data, "batch_size", 3)
    with pytest.raises(UserError, match="without a row"):
        walked(monkeypatch, lambda *_: None, "smollm2-135m")  # 3 heads, which 8 chips cannot share


def test_the_frontier_is_what_nothing_beats():
    points = [(3.0, 5), (1.0, 9), (2.0, 9), (2.0, 7), (4.0, 5), (5.0, 4)]
    best = search.frontier([report(*point) for point in points])
    assert [(one.estimate.high_s, one.memory.peak) for one in best] == [(1.0, 9), (2.0, 7), (3.0, 5), (5.0, 4)]


def test_the_frontier_comes_with_the_flags_that_make_it():
    made = dataclasses.replace(report(1.0, 5, fsdp=4, tensor=2, accumulation=24, remat="dots"), runs=7200)
    _, told = search.summary([made])
    assert "7,200 steps: 2.00 to 2.00 hours" in told
    config = paper.qlora("llama2-70b", "gsm8k")
    for flag in told.split("--config.")[1:]:
        path, value = flag.strip().split("=")
        *parents, field = path.split(".")
        part = functools.reduce(getattr, parents, config)
        setattr(part, field, type(getattr(part, field))(value))
    assert (config.mesh, config.accumulation, config.compute.remat) == (MeshConfig(1, 4, 2, 1), 24, "dots")


def test_where_nothing_fits_the_closest_is_reported_with_advice():
    def short(wanted: float) -> Report:
        shortage = OutOfMemory(wanted, 16e9, [])
        return dataclasses.replace(report(1.0, 1), memory=None, shortage=shortage, advice=("a larger slice",))

    told = search.summary([short(40e9), short(20e9), short(30e9)])
    assert "needs 20.00 GB" in told[0]
    assert told[1:] == ["  try a larger slice"]
    assert "no mesh" in search.summary([])[0]
