"""Every number that a user can give is taken, or refused in one clear line: fields of configurations, and flags."""

import copy
import dataclasses
import math
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from lema_jax import ranges
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
            if number is None and name == "attention_factor":  # the paper's own
                continue
            assert type(number) in (int, float)
            assert math.isfinite(number)
            assert abs(number) < 1e30 or name == "max_grad_norm"


def test_every_number_has_a_range():
    for config in (WALKED, Recipe("task"), RopeScaling()):
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
        ("", "accumulation", 0),
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
    for path in numeric(Recipe("task")):
        for number in (*NUMBERS[:-1], 1.5):
            limits = Limits(**{path[1]: number}) if len(path) > 1 else Limits()
            fields = {path[0]: number} if len(path) == 1 else {}
            found = Recipe("task", limits=limits, **fields).problems()
            assert all(isinstance(problem, str) for problem in found)
            if number != number or number in (math.inf, 10**30, "1"):
                assert any(path[-1] in problem for problem in found), (path, number)


def test_a_model_of_a_file_is_held_to_the_same_ranges():
    for name, value in (("num_layers", 2_000_000_000), ("vocab_size", -1), ("norm_eps", math.inf), ("head_dim", 7.5)):
        assert any(name in problem for problem in dataclasses.replace(LlamaConfig(), **{name: value}).problems())


# The flags of a command are global to a process: one process for each, which walks all of them.
WALK = """
import importlib, math, sys
from absl import flags
from absl.testing import flagsaver
from lema_jax import cli
from lema_jax.errors import UserError

name = sys.argv[1]
importlib.import_module(f"lema_jax.{name}")
walked = refused = 0
for module, defined in list(flags.FLAGS.flags_by_module_dict().items()):
    if not module.startswith("lema_jax"):
        continue
    for flag in defined:
        kind = flag.parser.flag_type() if flag.parser else ""
        if kind in ("int", "float"):
            given = ["-1", "0", "nan", "inf", "-inf", "1e30", "1" + 30 * "0", "1.5", "", "x", "9" * 5000]
        elif kind == "bool":
            given = ["maybe"]
        elif "list" in kind or kind == "string enum":
            given = ["a,,b", ",", "?"]
        else:
            continue
        for value in given:
            walked += 1
            with flagsaver.flagsaver():
                for other in list(flags.FLAGS):
                    if flags.FLAGS[other].value is None:
                        flags.FLAGS[other].using_default_value = True
                try:
                    required = [f"--{other}=x" for other in REQUIRED if other != flag.name]
                    cli.parse([name, f"--{flag.name}={value}", *required])
                except UserError as error:
                    refused += 1
                    assert flag.name in str(error), (flag.name, value, error)
                    assert len(str(error).splitlines()) == 1 and len(str(error)) < 400, (flag.name, value, error)
                else:
                    found = flags.FLAGS[flag.name].value
                    if kind in ("int", "float"):
                        assert abs(found) <= 1e15 or value in ("inf", "9" * 5000), (flag.name, value)
                        assert value not in ("nan", "1" + 30 * "0", "x", "", "-inf"), (flag.name, value)
                        assert value not in ("inf", "9" * 5000) or flag.default == math.inf, (flag.name, value)
print(walked, refused)
"""


@pytest.mark.parametrize(
    "command", ["sample", "correct", "evolve", "build_data", "train", "evaluate", "convert", "report", "aot"]
)
def test_every_flag_of_every_command_is_taken_or_refused_by_name(command):
    source = (Path(__file__).parents[1] / "lema_jax" / f"{command}.py").read_text()
    required = [name for name in ("out", "model", "task", "attempts", "checkpoint") if _is_required(source, name)]
    script = WALK.replace("REQUIRED", repr(required))
    done = subprocess.run([sys.executable, "-c", script, command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    walked, refused = map(int, done.stdout.split())
    assert refused * 2 > walked > 0


def _is_required(source: str, name: str) -> bool:
    start = source.find(f'"{name}"')
    return start >= 0 and "required=True" in source[start : source.find("\n_", start)]
