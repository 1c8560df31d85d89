"""Greedy decoding on the card: tokens a second and seconds for a benchmark's questions, prompts read included.

    python -m tests.benchmarks.gpu_decode

The weights are gpu_make's (135m) or random (0.5b, a LLaMA of Qwen2.5-0.5B's sizes), in bfloat16; the prompts are
questions of the task `arithmetic`, somewhat shorter than GSM8K's. No answer ends before its limit, so each has `new`
tokens: more than a real model's, most of which end by themselves. Each line is the second run; the first one compiles,
and its time stands beside it.
"""

import dataclasses
import json
import time
from typing import Any

import jax
import jax.numpy as jnp

from lema_jax import checkpoint
from lema_jax.checkpoint import abstract_variables
from lema_jax.data import tokenizer
from lema_jax.generation import engine as engines
from lema_jax.generation import student
from lema_jax.generation.student import Student
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.weights import hf_config
from tests.benchmarks.gpu_lines import DRY, MODELS, SIZES, WORK, case


def endless(read: Student) -> Student:
    """The student without an end: its tokenizer's end is a token that random or real weights hardly ever make."""
    read.tokenizer.eos_token = read.tokenizer.convert_ids_to_tokens(7)
    return dataclasses.replace(read, eos_ids=())


def real(scan: bool) -> Student:
    read = student.read(WORK / "model", checkpoint.latest_step(WORK / "model"), "bfloat16")
    if scan:
        return read
    compute = dataclasses.replace(read.model.compute, scan_layers=False)
    with sharding.use(read.mesh):
        variables = checkpoint.load_weights(WORK / "model", read.mesh, compute)[1]
    return dataclasses.replace(read, model=read.model.clone(compute=compute), variables=variables)


def random(name: str) -> Student:
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    model = Llama(hf_config.parse(MODELS[name], name), Compute(dtype="bfloat16", param_dtype="bfloat16"))
    with sharding.use(mesh):
        abstract = abstract_variables(model, mesh)
        # A norm's scale is around 1, all else small.
        draw = lambda path, leaf: (
            0.02 * jax.random.normal(jax.random.key(len(path)), leaf.shape) + (path[-1].key == "scale")
        ).astype(leaf.dtype)
        variables = jax.jit(lambda: jax.tree_util.tree_map_with_path(draw, abstract))()
    return Student(model, variables, tokenizer.load(WORK / "model"), mesh, ())


def measure(job: str, read: Student, asked: list[str], rows: int, new: int, **how: Any) -> None:
    with case("decode", f"{job}, {len(asked)} x {new}, {rows} rows") as found:
        for name in ("first_run_s", "wall_s"):
            made = student.engine(read, rows=rows, max_new_tokens=new, **how)
            began = time.perf_counter()
            done = list(made.complete(asked))
            found[name] = time.perf_counter() - began
        found["tokens"] = sum(one.completion_tokens for one in done)
        found["prompt_tokens"] = sum(one.prompt_tokens for one in done)
        found["tok_s"], found["tally"] = found["tokens"] / found["wall_s"], str(made.tally)


def main() -> None:
    prompts = json.loads((WORK / "prompts.json").read_text())
    few = (prompts * SIZES.prompts)[: SIZES.prompts]
    read, count = endless(real(scan=True)), len(few)
    engines.GROUP = 4
    measure("135m, as it is", read, few, count, SIZES.new)
    engines.GROUP = count // 4  # prompts read together
    measure("135m, a quarter read at once", read, few, count, SIZES.new, block=64)
    half = endless(random("0.5b"))
    measure("0.5b", half, few, count, SIZES.new)
    measure("0.5b, the questions", half, prompts, 4 if DRY else 512, SIZES.new)
    engines.GROUP = 4
    measure("135m, unrolled", endless(real(scan=False)), few, count, SIZES.new)
    engines.GROUP = count // 4
    many = (prompts * 2)[: 4 * count]
    measure("135m, many", read, many, 4 * count, SIZES.new)


if __name__ == "__main__":
    assert DRY or jax.default_backend() == "gpu", jax.default_backend()
    jnp.zeros(1).block_until_ready()
    main()
