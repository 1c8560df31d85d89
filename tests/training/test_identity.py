"""A run goes on only as what it began as: upon its base, from its weights, on its data; else it says what differs."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from lema_jax import checkpoint
from lema_jax.data import dataset, tokenizer
from lema_jax.data.encode import Encoded
from lema_jax.errors import UserError
from lema_jax.training import loop
from lema_jax.training.config import as_dict, shaping
from tests import tiny
from tests.training.test_loop import LORA, assert_equal, base, config, data, losses, weights

__all__ = ["base", "data"]  # fixtures


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(run, match: str) -> str:
    """A start that is refused in one line, and changes nothing."""
    before = contents(Path(run.out)) if Path(run.out).exists() else None
    with pytest.raises(UserError, match=match) as error:
        loop.run(run)
    assert "\n" not in str(error.value)
    assert (contents(Path(run.out)) if Path(run.out).exists() else None) == before
    return str(error.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data, base) -> Path:
    """A model of whole weights that train made: steps 1 and 2."""
    out = tmp_path_factory.mktemp("trained") / "model"
    loop.run(config(out, data, init=str(base), steps=2, checkpoint_every=1))
    return out


@pytest.fixture(scope="module")
def both(tmp_path_factory, trained, data) -> Path:
    """A model at step 1, its step 2 put aside, and a whole run of adapters upon it."""
    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(trained, folder / "model")
    shutil.move(folder / "model" / "checkpoints" / "2", folder / "later")
    loop.run(config(folder / "straight", data, init=str(folder / "model"), lora=LORA, steps=4))
    return folder


@pytest.fixture
def apart(tmp_path, both):
    """The same, and the run at step 2 of 4, as a kill leaves it."""
    shutil.copytree(both, tmp_path, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "straight", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    return tmp_path


def resumed(folder: Path, data: Path, init: Path, **fields) -> None:
    loop.run(config(folder / "run", data, init=str(init), lora=LORA, steps=4, **fields))
    assert losses(folder / "run") == losses(folder / "straight")
    assert_equal(weights(folder / "run"), weights(folder / "straight"))


@pytest.mark.slow
def test_a_base_that_was_trained_on_in_place_is_refused_until_it_is_back(apart, data):
    model, run = apart / "model", config(apart / "run", data, init=str(apart / "model"), lora=LORA, steps=4)
    began = checkpoint.identity(model)
    shutil.move(apart / "later", model / "checkpoints" / "2")
    said = refused(run, f"adapters of the base weights {began} at .*but there is {checkpoint.identity(model)}")
    assert f"its step 1 is still there: move the later ones out of {model / 'checkpoints'}" in said
    shutil.move(model / "checkpoints" / "2", apart / "later")
    resumed(apart, data, model)


@pytest.mark.slow
def test_a_base_that_moved_is_found_by_init_and_remembered(apart, data):
    moved = apart / "elsewhere" / "model"
    moved.parent.mkdir()
    shutil.move(apart / "model", moved)
    refused(config(apart / "run", data, init=str(apart / "model"), lora=LORA, steps=4), "but there is nothing")
    run = config(apart / "run", data, init=str(moved), lora=LORA, steps=4)
    loop.run(run)
    assert losses(apart / "run") == losses(apart / "straight")
    assert os.path.normpath(apart / "run" / checkpoint.read_metadata(apart / "run").base) == str(moved)
    weights(apart / "run")


@pytest.mark.slow
def test_another_base_is_refused_and_the_same_one_made_again_is_not(apart, data, base):
    refused(config(apart / "run", data, init=str(base), lora=LORA, steps=4), "adapters of the base weights")
    shutil.rmtree(apart / "model")
    again = config(apart / "model", data, init=str(base), steps=2, checkpoint_every=1)
    loop.run(again)
    shutil.rmtree(apart / "model" / "checkpoints" / "2")
    resumed(apart, data, apart / "model")


def test_what_is_held_in_nf4_and_the_adapters_shape_stay_as_they_were(apart, data):
    for lora in (dataclasses.replace(LORA, base="nf4"), dataclasses.replace(LORA, alpha=16.0), None):
        run = config(apart / "run", data, init=str(apart / "model"), lora=lora, steps=4)
        with pytest.raises(UserError, match=r"stay as they were|nf4"):
            loop.run(run, allow_config_change=True)


@pytest.mark.long
def test_dropout_may_change_where_that_is_insisted_on(apart, data):
    lora = dataclasses.replace(LORA, dropout=0.0)
    loop.run(config(apart / "run", data, init=str(apart / "model"), lora=lora, steps=4), allow_config_change=True)
    assert checkpoint.latest_step(apart / "run") == 4


@pytest.mark.slow
def test_other_data_or_another_tokenizer_under_a_run_is_refused(tmp_path, data, base):
    own, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, own)
    loop.run(config(run, own, init=str(base), lora=LORA, steps=2))
    settings = config(run, own, init=str(base), lora=LORA, steps=2)
    began = dataset.fingerprint(own)
    words = own / "tokenizer" / "tokenizer.json"
    kept = words.read_text()
    words.write_text(kept.replace("three", "seven"))
    refused(settings, f"was begun on the data set {began}, but {own} holds {dataset.fingerprint(own)}")
    words.write_text(kept)
    shutil.rmtree(own)
    own.mkdir()
    tokenizer.save(tokenizer.load(data), own / "tokenizer")
    rows = [Encoded(np.arange(3, 15, dtype=np.int32), np.ones(12, np.uint8))] * 40
    dataset.write_records(rows, own)
    refused(settings, "other rows or another tokenizer. Bring the data set back, or begin on this one in another out")
    with pytest.raises(UserError, match="was begun on the data set"):  # no insisting either: the place in it is lost
        loop.run(settings, allow_config_change=True)
    moved = config(run, data, init=str(base), lora=LORA, steps=2)
    loop.run(moved)  # the same rows elsewhere


@pytest.mark.slow
def test_another_init_is_refused_where_the_run_has_weights_of_its_own(tmp_path, data, base):
    other = tiny.model_folder(tmp_path / "other", data, seed=7)
    run = config(tmp_path / "run", data, init=str(base), steps=2)
    loop.run(run)
    run.init = str(other)
    refused(run, f"was begun from {checkpoint.identity(base)}, but init={other} holds {checkpoint.identity(other)}")
    run.init = str(tmp_path / "gone")
    loop.run(run)


def test_a_model_that_train_did_not_make_is_not_trained_into(tmp_path, data, base):
    own = tmp_path / "own"
    shutil.copytree(base, own)
    refused(config(own, data, init=str(base), steps=2), "holds a model that train did not make")


@pytest.mark.slow
def test_weights_after_a_changed_configuration_have_another_name(tmp_path, data, base):
    run = config(tmp_path / "run", data, init=str(base), steps=2, checkpoint_every=1)
    loop.run(run)
    first = checkpoint.identity(tmp_path / "run", 1), checkpoint.identity(tmp_path / "run", 2)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    for name, seed in (("run", 1), ("other", 2)):
        changed = config(tmp_path / name, data, init=str(base), steps=3)
        changed.data.seed = seed
        loop.run(changed, allow_config_change=True)
        loop.run(changed)  # and again: it is its own by now
    names = [[checkpoint.identity(tmp_path / name, step) for step in (1, 2, 3)] for name in ("run", "other")]
    assert names[0][:2] == names[1][:2] == list(first)
    assert names[0][2] != names[1][2]
    assert len(weights(tmp_path / "run")) == 1


@pytest.mark.slow
def test_a_start_that_fails_claims_nothing_and_the_corrected_command_works(tmp_path, data, base):
    out = tmp_path / "run"
    wrong = config(out, data, init=str(base), steps=1)
    wrong.data.seq_len = 8
    for broken in (
        wrong,
        config(out, data, init=str(tmp_path / "none")),
        config(out, tmp_path / "none", init=str(base)),
    ):
        refused(broken, "is shorter than|no model folder|no data set")
        assert not out.exists()
    ill = config(out, data, init=str(base), steps=1)
    ill.guard.max_grad_norm = 1e-9
    with pytest.raises(UserError, match="its update was skipped"):
        loop.run(ill)
    (out / "config.json").write_text("")  # as a full disk left it once
    other = config(out, data, init=str(base), steps=1)
    other.data.seed = 3
    loop.run(other)
    assert json.loads((out / "config.json").read_text())["data"]["seed"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", '{"data": ', "[]", None])
def test_a_lost_config_json_is_made_again_by_its_own_command_alone(tmp_path, data, base, content, trained):
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    (out / "config.json").unlink() if content is None else (out / "config.json").write_text(content)
    run = config(out, data, init=str(base), steps=2, checkpoint_every=1)
    run.optimizer.learning_rate = 5e-3
    with pytest.raises(UserError, match=r"another configuration:\n  .*config\.json cannot be read"):
        loop.run(run)
    run.optimizer.learning_rate = 1e-2
    loop.run(run)
    assert json.loads((out / "config.json").read_text())["optimizer"]["learning_rate"] == 1e-2


@pytest.mark.slow
def test_trials_on_another_dev_set_are_not_compared(tmp_path, data, base):
    dev = tmp_path / "dev"
    shutil.copytree(data, dev)
    run = config(tmp_path / "run", data, init=str(base), steps=4, keep=1)
    run.dev.path = str(dev)
    loop.run(run)
    tried = [json.loads(line) for line in (tmp_path / "run" / "dev.jsonl").read_text().splitlines()]
    best = min(tried, key=lambda line: line["loss"])["step"]
    assert checkpoint.best_step(tmp_path / "run") == best
    shutil.rmtree(dev)
    dev.mkdir()
    rows = [Encoded(np.full(12, 600, np.int32), np.ones(12, np.uint8))] * 8  # never learnt: a far higher loss
    dataset.write_records(rows, dev)
    run.steps = 6
    loop.run(run, allow_config_change=True)
    tried = [json.loads(line) for line in (tmp_path / "run" / "dev.jsonl").read_text().splitlines()]
    assert tried[-1]["loss"] > tried[0]["loss"]
    assert tried[-1]["on"] != tried[0]["on"]
    assert checkpoint.best_step(tmp_path / "run") == 6
    (tmp_path / "run" / "dev.jsonl").write_text("garbled\n" * 3)  # which is for people: the steps themselves know
    assert checkpoint.best_step(tmp_path / "run") == 6


def test_fields_of_other_families_shape_a_run_only_where_they_are_set(tmp_path, data):
    run = config(tmp_path / "run", data, model=tiny.CONFIG)
    names = shaping(as_dict(run))
    assert "model.attention_bias" in names
    assert not any("qk_norm" in name or "layer_kinds" in name for name in names)
    run.model = dataclasses.replace(tiny.CONFIG, qk_norm="head", layer_kinds=("local",))
    assert shaping(as_dict(run))["model.qk_norm"] == "head"
    assert shaping(as_dict(run))["model.layer_kinds"] == ["local"]
