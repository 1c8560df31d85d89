"""The formula against the matmuls in the traced step, and properties of any count."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.interpreters import partial_eval

from lema_jax.model import flops
from lema_jax.model.config import REMAT, Compute, LlamaConfig, LoraConfig
from lema_jax.model.llama import Llama
from lema_jax.training import objectives
from lema_jax.training.objectives import PreferenceConfig

CONFIG = LlamaConfig(704, 64, 176, 3, 4, 2, 24, 256)  # no two sizes alike
ROWS, LENGTH = 2, 80
LORA = LoraConfig(rank=12)


def step(lora: LoraConfig | None = LORA, remat: str = "none", **changed) -> flops.Step:
    compute = Compute(remat=remat, attention="xla", loss_chunk=LENGTH)
    return dataclasses.replace(flops.Step(CONFIG, compute, lora, ROWS, LENGTH), **changed)


def traced(work: flops.Step) -> float:
    """Flops of all products of the loss and its gradient, of those whose result is used."""
    model = Llama(work.model, work.compute, work.lora)
    collection = "lora" if work.lora else "params"
    frozen = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))
    trained = frozen.pop(collection)
    names = ("tokens", "weights", "segment_ids", "positions", "reference")
    whole = jax.ShapeDtypeStruct((work.rows, work.length), jnp.int32)
    how = PreferenceConfig(reference="base" if work.reference else "stored")
    objective = objectives.of("preference" if work.logits_first else "sft", how)
    loss = lambda *given: objective.loss(*given, None, model=model, collection=collection)[0]
    found = jax.make_jaxpr(jax.value_and_grad(loss))(trained, frozen, dict.fromkeys(names, whole)).jaxpr
    used, _ = partial_eval.dce_jaxpr(found, [True] * len(found.outvars))
    return products(used)


def products(jaxpr: Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        total += equation.params.get("length", 1) * sum(map(products, jaxprs_in_params(equation.params)))
    return total


@pytest.mark.slow
@pytest.mark.parametrize("remat", REMAT)
@pytest.mark.parametrize("lora", [None, LORA])
def test_the_formula_counts_the_products_of_the_step(lora, remat):
    work = step(lora, remat)
    assert flops.by_formula(work) == traced(work)


@pytest.mark.slow
@pytest.mark.parametrize(("lora", "reference"), [(None, False), (LORA, False), (LORA, True)])
def test_the_formula_counts_a_step_on_pairs(lora, reference):
    work = step(lora, "full", logits_first=True, reference=reference)
    assert flops.by_formula(work) == traced(work)


def test_a_frozen_kernel_has_no_gradient_of_its_own():
    params = nn.unbox(jax.eval_shape(Llama(CONFIG).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))["params"]
    kernels = sum(leaf.size for leaf in jax.tree.leaves((params["layers"]["attn"], params["layers"]["mlp"])))
    of_rank = lambda rank: flops.model_flops(step(LoraConfig(rank)))
    without_adapters = 2 * of_rank(12) - of_rank(24)  # a straight line in their rank
    gradients = 2 * ROWS * LENGTH * (kernels + params["head"]["kernel"].size)
    assert flops.model_flops(step(None)) - without_adapters == gradients


@pytest.mark.parametrize("lora", [None, LORA])
def test_nothing_that_is_done_twice_counts_in_mfu(lora):
    plain = flops.model_flops(step(lora))
    assert flops.model_flops(step(lora, "full")) == plain
    assert flops.model_flops(step(lora, rows=3 * ROWS)) == 3 * plain
    # What is left out of a step without remat: what lies above attention's diagonal.
    above = 6 * 2 * ROWS * CONFIG.num_layers * CONFIG.num_heads * CONFIG.head_dim * (LENGTH * (LENGTH - 1) // 2)
    assert flops.by_formula(step(lora)) - plain == above


def test_a_window_counts_the_pairs_within_it():
    local = dataclasses.replace(CONFIG, layer_kinds=("local", "global", "local"), window=9)
    pairs = sum(min(position + 1, 9) for position in range(LENGTH))
    fewer = 2 * (LENGTH * (LENGTH + 1) // 2 - pairs)  # in two of the three layers
    left_out = 6 * 2 * ROWS * CONFIG.num_heads * CONFIG.head_dim * fewer
    assert flops.model_flops(step()) - flops.model_flops(step(model=local)) == left_out


@pytest.mark.parametrize(("window", "blocks"), [(None, 10), (1, 4), (2, 7), (513, 7), (514, 9), (2048, 10)])
def test_splash_attends_in_blocks_that_a_window_reaches(window, blocks):
    of_block = 2 * 3 * 512 * 512 * 64
    assert flops.splash_matmul(3, 2048, 2048, 64, window) == blocks * of_block
