"""Preference training: the loss is its formula however the work is split; the reference; resumed; what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lema_jax.errors import UserError
from lema_jax.model import layout
from lema_jax.model.config import Compute
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training import dry_run, loop, objectives
from lema_jax.training import reference as references
from lema_jax.training.config import DataConfig, GuardConfig, OptimizerConfig, TrainConfig, as_dict, shaping, validate
from lema_jax.training.objectives import OBJECTIVES, PreferenceConfig
from lema_jax.training.setup import Setup
from tests import tiny
from tests.training.test_loop import assert_equal, losses, weights
from tests.training.test_loop import config as examples_config

HOW = PreferenceConfig(beta=0.7, label_smoothing=0.1, nll_weight=0.5)
ROWS, LENGTH = 8, 24


@pytest.mark.parametrize("how", [PreferenceConfig(), HOW])
def test_the_loss_of_pairs_is_its_formula(how: PreferenceConfig) -> None:
    random = np.random.default_rng(0)
    nll, before = random.uniform(1, 9, (2, 2, 3, 2))
    tokens = random.integers(1, 5, (2, 3, 2)).astype(float)
    tokens[0, 1] = tokens[1, 2] = 0  # rows have fewer pairs than they could
    nll[tokens == 0] = before[tokens == 0] = 0
    expected: dict[str, float] = dict.fromkeys(("loss", "pairs", "margin", "accuracy", "chosen_fall"), 0.0)
    for row, place in np.argwhere(tokens[..., 0] > 0):
        (chosen, rejected), (chosen_before, rejected_before) = nll[row, place], before[row, place]
        margin = how.beta * ((chosen_before - chosen) - (rejected_before - rejected))
        up, down = (-np.log(1 / (1 + np.exp(-sign * margin))) for sign in (1, -1))
        length = tokens[row, place, 0]
        loss = (1 - how.label_smoothing) * up + how.label_smoothing * down + how.nll_weight * chosen / length
        one = (loss, 1, margin, margin > 0, (chosen - chosen_before) / length)
        expected = {name: expected[name] + value for name, value in zip(expected, one)}
    total, sums = objectives.pair_losses(nll, before, tokens, how)
    found = {name: float(value) for name, value in (sums | {"loss": total}).items()}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert set(sums) == {*OBJECTIVES["preference"].counts, *OBJECTIVES["preference"].means}


def batch(seed: int, packed: bool = True) -> dict[str, np.ndarray]:
    """Eight pairs of 12 tokens: two in each of the first four rows, or one in each row."""
    segments, places = np.zeros((ROWS, LENGTH), np.int32), np.zeros((ROWS, LENGTH), np.int32)
    random = np.random.default_rng(seed)
    tokens, weights = (np.zeros((ROWS, LENGTH), kind) for kind in (np.int32, np.float32))
    reference = np.zeros((ROWS, LENGTH), np.float32)
    for pair in range(8):
        row, start = (pair // 2, 12 * (pair % 2)) if packed else (pair, 0)
        span = slice(start, start + 12)
        tokens[row, span] = random.integers(0, 700, 12)
        tokens[row, start + 5 : start + 7] = tokens[row, start : start + 2]  # the prompt in common
        segments[row, span] = np.repeat([1, 2], [5, 7]) + (2 if start else 0)
        places[row, span] = [*range(5), *range(7)]
        weights[row, span] = places[row, span] >= 2
        reference[row, [start, start + 5]] = random.uniform(15, 30, 2)
    rows = {"tokens": tokens, "weights": weights, "segment_ids": segments, "positions": places}
    return rows | {"reference": reference}


def train(*, lora: bool, packed: bool = True, **fields: Any) -> tuple[list[dict[str, float]], Any]:
    """Metrics and final trained weights of three steps from the same random weights."""
    settings = {"mesh": MeshConfig(1, 1, 1), "optimizer": OptimizerConfig(learning_rate=1e-2), "preference": HOW}
    config = TrainConfig(
        out="-",
        init="-",
        steps=3,
        data=DataConfig("-", ROWS, LENGTH),
        objective="preference",
        lora=tiny.LORA if lora else None,
        **settings | fields,
    )
    axes = config.mesh
    mesh = make_mesh(axes, jax.devices()[: axes.data * axes.fsdp * axes.tensor * axes.sequence])
    with sharding.use(mesh):
        setup = Setup(config, tiny.CONFIG, mesh)
        start = tiny.variables(lora=config.lora)
        start = start if config.compute.scan_layers else layout.unstack_layers(start)
        state = setup.begin(jax.device_put(start[setup.collection], sharding.of(setup.state.trained)))
        frozen = {name: jax.device_put(start[name], sharding.of(tree)) for name, tree in setup.frozen.items()}
        found = []
        for number in range(3):
            rows = {name: array for name, array in batch(number, packed).items() if name in setup.batch}
            placed = jax.device_put(rows, sharding.of(setup.batch))
            state, metrics = setup.step(state, frozen, placed, setup.put_seed(0))
            found.append({name: float(value) for name, value in metrics.items()})
        return found, jax.device_get(setup.to_disk(state).trained)


SPLITS = {
    "one pair a row": {"packed": False},
    "data 2 fsdp 2 tensor 2": {"mesh": MeshConfig(2, 2, 2)},
    "fsdp 2 tensor 2 sequence 2": {"mesh": MeshConfig(1, 2, 2, 2)},
    "accumulation": {"accumulation": 4},
    "fsdp and accumulation": {"mesh": MeshConfig(1, 2, 1), "accumulation": 2},
    "in line, in small chunks": {"compute": Compute(scan_layers=False, loss_chunk=5)},
}
BASE = PreferenceConfig(beta=0.7, reference="base")


@pytest.fixture(scope="module")
def alone() -> dict[bool, Any]:
    return {lora: train(lora=lora, **({"preference": BASE} if lora else {})) for lora in (False, True)}


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "split",
    [
        name
        if name in ("fsdp 2 tensor 2 sequence 2", "one pair a row", "accumulation")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in SPLITS
    ],
)
def test_the_split_of_the_work_changes_nothing(split: str, lora: bool, alone: dict[bool, Any]) -> None:
    found, trained = train(lora=lora, **SPLITS[split] | ({"preference": BASE} if lora else {}))
    expected, after = alone[lora]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=2e-4, abs=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-4), trained, after)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.pair_set(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("model") / "base", data)


def config(out: Path, data: Path, base: Path, **fields: Any) -> TrainConfig:
    settings: dict[str, Any] = {"init": str(base), "lora": tiny.LORA, "objective": "preference", "steps": 4}
    return examples_config(out, data, **settings | fields)


def reference_file(data: Path) -> Path:
    (file,) = (data / "reference").iterdir()
    return file


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, data: Path, base: Path) -> Path:
    out = tmp_path_factory.mktemp("straight") / "run"
    loop.run(config(out, data, base))
    return out


def stopped(straight: Path, out: Path) -> Path:
    """The run as a kill after step 2 leaves it."""
    shutil.copytree(straight, out)
    shutil.rmtree(out / "checkpoints" / "4")
    return out


@pytest.mark.slow
def test_a_resumed_run_ends_bit_equal(tmp_path: Path, data: Path, base: Path, straight: Path) -> None:
    out = stopped(straight, tmp_path / "run")
    loop.run(config(out, data, base))
    assert_equal(weights(out), weights(straight))
    assert losses(out) == losses(straight)
    first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5)  # the model is its own reference at first
    assert first["margin"] == pytest.approx(0, abs=1e-4)


@pytest.mark.slow
def test_the_base_under_the_adapters_is_the_same_reference(
    tmp_path: Path, data: Path, base: Path, straight: Path
) -> None:
    loop.run(config(tmp_path / "run", data, base, preference=PreferenceConfig(reference="base")))
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(straight), rtol=1e-4)


@pytest.mark.slow
def test_a_reference_that_was_cut_short_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, data: Path, base: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole = reference_file(data)
    own = tmp_path / "pairs"
    shutil.copytree(data, own)
    there = own / "reference" / whole.name
    there.unlink()
    put, calls = Setup.put, []

    def dies(self: Setup, rows: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return put(self, rows)

    run = config(tmp_path / "run", own, base)
    with monkeypatch.context() as patch:
        patch.setattr(Setup, "put", dies)
        with pytest.raises(KeyboardInterrupt):
            loop.run(run)
    some = json.loads(there.read_text())["nll"]
    assert 0 < sum(pair[0] is None for pair in some) < len(some)
    assert not (tmp_path / "run").exists()  # nothing is claimed yet
    loop.run(run)
    assert there.read_bytes() == whole.read_bytes()
    assert losses(tmp_path / "run") == losses(straight)
    # Damaged, or of a run that goes on elsewhere: it is computed again, from the weights that the run began with.
    there.write_text(there.read_text().replace("1", "2", 1))
    out = stopped(straight, tmp_path / "again")
    loop.run(config(out, own, base))
    assert "is damaged" in capsys.readouterr().out
    assert there.read_bytes() == whole.read_bytes()
    assert losses(out) == losses(straight)


@pytest.mark.slow
def test_a_lost_reference_needs_the_weights_that_the_run_began_with(tmp_path: Path, data: Path, base: Path) -> None:
    own, model, out = tmp_path / "pairs", tmp_path / "base", tmp_path / "run"
    shutil.copytree(data, own)
    shutil.copytree(base, model)
    loop.run(run := config(out, own, model, lora=None))
    shutil.rmtree(own / "reference")
    shutil.rmtree(out / "checkpoints" / "4")
    shutil.rmtree(model)
    with pytest.raises(UserError, match="is no model folder"):
        loop.run(run)
    shutil.copytree(base, model)
    before = losses(out)
    loop.run(run)
    assert losses(out) == before


def test_another_model_or_precision_has_a_reference_of_its_own(tmp_path: Path, data: Path, base: Path) -> None:
    names = {
        references.Reference(changed, model)._file
        for changed in (config(tmp_path, data, base), config(tmp_path, data, base, compute=Compute(dtype="bfloat16")))
        for model in ("a@1", "a@2")
    }
    assert len(names) == 4
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    same = references.Reference(config(tmp_path / "b", moved, base, mesh=MeshConfig(2, 2, 2), accumulation=1), "a@1")
    assert same._file in names


@pytest.mark.slow
def test_the_run_stops_where_chosen_completions_fall(
    tmp_path: Path, data: Path, base: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = references.Reference.of
    monkeypatch.setattr(references.Reference, "of", lambda self, rows: of(self, rows) / 2)  # as of a far better model
    run = config(stopped(straight, tmp_path / "run"), data, base)
    with pytest.raises(
        UserError, match=r"step 3: the chosen completions are .* above guard.max_chosen_fall=1:"
    ) as error:
        loop.run(run)
    assert "\n" not in str(error.value)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (line["step"], line["chosen_fall"] > 1) == (3, True)
    assert not (tmp_path / "run" / "checkpoints" / "4").exists()
    run.guard = GuardConfig(max_chosen_fall=0)
    loop.run(run)  # the bound shapes no weights: the run goes on
    assert len(losses(tmp_path / "run")) == 4


def test_pairs_and_examples_are_not_taken_for_each_other(tmp_path: Path, data: Path, base: Path) -> None:
    plain = tiny.data_set(tmp_path / "plain", examples=5)
    cases = [
        (
            config(tmp_path / "run", plain, base),
            r"holds 5 examples and 0 pairs; make some with lema_jax.build_data --arm",
        ),
        (config(tmp_path / "run", data, base, objective="sft"), "holds preference pairs, not examples; set objective="),
    ]
    for run, found in cases:
        for begin in (loop.run, dry_run.show):
            with pytest.raises(UserError, match=found):
                begin(run)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_dry_run_shows_a_pair(tmp_path: Path, data: Path, base: Path, capsys: Any) -> None:
    dry_run.show(config(tmp_path / "run", data, base))
    assert "tokens with loss are green" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"objective": "dpo"}, "objective='dpo' must be one of sft, preference"),
        ({"lora": None, "preference": PreferenceConfig(reference="base")}, "is the model under adapters; set lora"),
        ({"init": "", "lora": None, "model": tiny.CONFIG}, "compares with the model that it starts from; give init"),
        ({"preference": PreferenceConfig(beta=0.0)}, "preference.beta=0.0 must be above 0"),
        ({"preference": PreferenceConfig(label_smoothing=0.5)}, "preference.label_smoothing=0.5 must be"),
        ({"preference": PreferenceConfig(reference="other")}, "reference='other' must be one of stored, base"),
    ],
)
def test_a_configuration_that_makes_no_sense(tmp_path: Path, fields: dict[str, Any], found: str) -> None:
    with pytest.raises(UserError) as error:
        validate(config(tmp_path, tmp_path, tmp_path, **fields), devices=8)
    assert found in str(error.value)


def test_runs_from_before_the_objective_resume(tmp_path: Path) -> None:
    names = shaping(as_dict(examples_config(tmp_path, tmp_path, init="base")))
    assert not any(name.startswith(("objective", "preference")) for name in names)
    named = shaping(as_dict(config(tmp_path, tmp_path, tmp_path, preference=HOW)))
    assert (named["objective"], named["preference.beta"]) == ("preference", 0.7)
