"""Every number that a user can give is taken, or refused in one clear line: fields of configurations, and flags."""

import copy
import dataclasses
import importlib
import math
import re
import typing
from collections.abc import Sequence

import pytest

from lema_jax import ranges, stage
from lema_jax.data.batches import DataConfig
from lema_jax.data.build import Recipe
from lema_jax.data.encode import Limits
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, LoraConfig, RopeScaling
from lema_jax.training.config import TrainConfig, validate
from tests import tiny

NUMBERS = (-1, 0, -1.0, 0.5, math.nan, math.inf, -math.inf, 1e30, 10**30, -(10**30), 2**31, 2**63, True, "1", None)


def train_config() -> TrainConfig:
    return TrainConfig(out="out", data=DataConfig("data", 8, 32), steps=1, model=copy.deepcopy(tiny.CONFIG))


def numeric(config: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all numbers in a dataclass and those in it."""
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found += numeric(value, (*path, field.name))
        elif {int, float}.intersection(typing.get_args(field.type) or (field.type,)):
            found.append((*path, field.name))
    return found


WALKED = dataclasses.replace(train_config(), lora=LoraConfig())


@pytest.mark.parametrize("path", numeric(WALKED), ids=".".join)
def test_every_number_of_a_run_is_taken_or_refused_by_name(path):
    for number in NUMBERS:
        config = train_config()
        if path[0] == "lora":
            config.model, config.init, config.lora = None, "init", LoraConfig()
        *parts, name = path
        part = config
        for step in parts:
            part = getattr(part, step)
        setattr(part, name, number)
        try:
            validate(config, devices=1)
        except UserError as error:
            lines = str(error).splitlines()[1:]
            assert any(name in line for line in lines), (number, lines)
            assert all(len(line) < 250 for line in lines)
        else:
            if number is None and type(None) in typing.get_args(typing.get_type_hints(type(part))[name]):
                continue
            assert type(number) in (int, float)
            assert math.isfinite(number)
            assert abs(number) < 1e30 or name == "max_grad_norm"


def test_every_number_has_a_range():
    for config in (WALKED, RopeScaling()):
        for path in numeric(config):
            part = config
            for step in path[:-1]:
                part = getattr(part, step)
            (field,) = (field for field in dataclasses.fields(part) if field.name == path[-1])
            assert ranges.of(field) is not None, path


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("", "keep", -1),
        ("", "accumulation", -1),
        ("", "epochs", 1e18),
        ("", "seed", -1),
        ("optimizer", "learning_rate", 1e30),
        ("optimizer", "warmup_steps", -1),
        ("optimizer", "beta1", 1.5),
        ("optimizer", "beta2", 1.0),
        ("optimizer", "weight_decay", -1.0),
        ("optimizer", "epsilon", 0.0),
        ("model", "max_positions", 4),
        ("model", "num_layers", 100_000),
        ("model", "rope_theta", math.nan),
        ("guard", "max_grad_norm", math.nan),
        ("mesh", "data", 0),
        ("mesh", "fsdp", -2),
    ],
)
def test_what_no_run_can_mean_is_refused(part, field, value):
    config = train_config()
    setattr(getattr(config, part) if part else config, field, value)
    with pytest.raises(UserError, match=re.escape(f"{field}={value}")):
        validate(config, devices=1)


def test_what_means_something_is_taken():
    config = train_config()
    config.keep, config.mesh.data, config.mesh.fsdp = 0, 1, -1
    config.optimizer.learning_rate, config.optimizer.clip_norm = 1, 0  # whole numbers serve for numbers
    validate(config, devices=1)


@pytest.mark.parametrize("field", ["data", "optimizer", "model", "mesh", "compute", "tensorboard", "out"])
def test_a_part_of_another_kind_is_named(field):
    config = train_config()
    setattr(config, field, 7)
    with pytest.raises(UserError, match=f"{field}=7 must be"):
        validate(config, devices=1)


def test_a_recipe_of_data_too():
    for path in numeric(Recipe("task", train_tokenizer=900)):
        for number in (*NUMBERS[:-1], 1.5):
            limits = Limits(**{path[1]: number}) if len(path) > 1 else Limits()
            fields = {"train_tokenizer": 900} | ({path[0]: number} if len(path) == 1 else {})
            try:
                stage.require(Recipe("task", limits=limits, **fields))
            except UserError as error:
                found = str(error)
            else:
                found = ""
            if number != number or number in (math.inf, 10**30, "1"):
                assert path[-1] in found, (path, number)


def test_a_model_of_a_file_is_held_to_the_same_ranges():
    for name, value in (("num_layers", 2_000_000_000), ("vocab_size", -1), ("norm_eps", math.inf), ("head_dim", 7.5)):
        assert any(name in problem for problem in dataclasses.replace(LlamaConfig(), **{name: value}).problems())


COMMANDS = ("sample", "correct", "evolve", "build_data", "train", "evaluate", "convert", "report", "aot")
NUMERALS = ("-1", "0", "nan", "inf", "-inf", "1e30", "1" + 30 * "0", "1.5", "", "x", "9" * 4000)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_every_command_is_taken_or_refused_by_name(name, tmp_path):
    """Also the flags' own values: what is taken is a finite number, or an infinite default."""
    command = importlib.import_module(f"lema_jax.{name}").command
    (tmp_path / "config.py").write_text(
        "from lema_jax.training.config import DataConfig, TrainConfig\n"
        "def get_config():\n    return TrainConfig(out='', data=DataConfig())\n"
    )
    needed = {"config": str(tmp_path / "config.py")}
    walked = refused = passed = 0
    for field in stage.options(command.config):
        for value in values(field.hint):
            walked += 1
            required = [
                f"--{other.name}={needed.get(other.name, 'x')}"
                for other in stage.options(command.config)
                if other.default is dataclasses.MISSING and other.name != field.name
            ]
            try:
                config = command.parse([f"--{field.name}={value}", *required])
                stage.require(config)
            except UserError as error:
                line = str(error)
                if line == without(command, required):  # the others alone are refused for that
                    passed += 1
                else:
                    refused += f"--{field.name}" in line and len(line) < 600 and "\n" not in line
            else:
                passed += 1
                found = next(getattr(p, field.name) for p in stage.parts(config) if hasattr(p, field.name))
                if isinstance(found, (int, float)) and not isinstance(found, bool):
                    assert abs(found) <= max(1e15, 2**63) or found == field.default, (field.name, value)
                    assert value not in ("nan", "1" + 30 * "0", "x", "", "-inf"), (field.name, value)
    assert refused + passed == walked
    assert refused * 2 > walked > 0


def without(command, required: list[str]) -> str:
    try:
        stage.require(command.parse(required))
    except UserError as error:
        return str(error)
    return ""


def values(hint) -> tuple[str, ...]:
    classes = ranges.classes(hint)
    if {int, float}.intersection(classes):
        return NUMERALS
    if bool in classes:
        return ("maybe",)
    return ("a,,b", ",") if Sequence in classes else ()
