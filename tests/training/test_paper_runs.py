"""Every file of configs/ builds and holds together; the paper's runs are the paper's."""

import importlib.util
import math
from pathlib import Path

import jax
import pytest

from lema_jax import checkpoint
from lema_jax.errors import UserError
from lema_jax.model import presets
from lema_jax.model.llama import Llama
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.planning.config import StudyConfig
from lema_jax.training import paper
from lema_jax.training.config import TrainConfig, validate

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
PAPER = [path for path in CONFIGS if "paper." in path.read_text()]


def built(path: Path) -> TrainConfig | StudyConfig:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_holds_together(path):
    config = built(path)
    if isinstance(config, StudyConfig):
        assert config.problems() == []
    else:
        validate(config, devices=1)


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_runs_fit_a_slice_of_a_tpu(path):
    config = built(path)
    assert config.out == f"runs/{path.stem}"
    for devices in (8, 32):
        validate(config, devices)
    llama = presets.get(Path(config.init).name.replace("llama2", "llama-2"))
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))  # an array that it cannot cut is an error
    layers = checkpoint.abstract_variables(Llama(llama, config.compute, config.lora), mesh)["params"]["layers"]
    if config.lora:
        held = layers["mlp"]["up"]["kernel"]
        bits = 8 * sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))
        weights = llama.num_layers * llama.hidden_size * llama.intermediate_size
        assert bits / weights == 4 + 8 / 64 + 2 * 32 / 64**2


def test_the_papers_runs_are_all_there():
    names = {path.stem for path in PAPER}
    models = ("llama2_7b", "llama2_13b", "codellama_34b", "llama_65b", "llama2_70b")
    assert names == {f"{model}_{task}" for model in models for task in ("gsm8k", "math", "csqa")} | {
        "llama2_70b_math_full",
        "llemma_34b_math_full",
    }


def test_a_run_that_the_paper_does_not_have_is_refused():
    with pytest.raises(UserError, match=r"no such run of model 'llama2-8b'; it has llama2-7b"):
        paper.qlora("llama2-8b", "gsm8k")
