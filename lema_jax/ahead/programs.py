"""The package's own programs, compiled for a slice and reported: the training step, prefill, a decoding step."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lema_jax.ahead import compiler
from lema_jax.ahead.cost import count
from lema_jax.ahead.estimate import bracket
from lema_jax.ahead.memory import OutOfMemory, largest
from lema_jax.ahead.report import Report
from lema_jax.model import decode, flops
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.model.decode import Rows, Sampling
from lema_jax.model.llama import Llama
from lema_jax.parallel import chips, sharding
from lema_jax.parallel.chips import Slice
from lema_jax.parallel.mesh import make_mesh
from lema_jax.training.config import TrainConfig, validate
from lema_jax.training.setup import Setup

LISTED = 8  # buffers named when a program does not fit


@dataclasses.dataclass(frozen=True)
class Job:
    """What every report of a run of this door shares. `ratio`: see `estimate.calibration`."""

    slice: Slice
    devices: list[Any]
    llama: LlamaConfig
    price_per_chip_hour: float = 0.0
    ratio: float | None = None


def train_step(job: Job, config: TrainConfig) -> Report:
    """The trainer's step, of a configuration.

    Raises:
      UserError: a configuration that does not hold together on this slice.
    """
    validate(config, len(job.devices))
    mesh = make_mesh(config.mesh, job.devices)
    rows = f"{config.data.batch_size}×{config.data.seq_len}"
    layout = _layout(mesh) | {"rows": rows, "accumulation": config.accumulation, "remat": config.compute.remat}
    with sharding.use(mesh):
        setup = Setup(config, job.llama, mesh)
        arguments = largest({"state": setup.state, "frozen": setup.frozen, "batch": setup.batch}, LISTED)
        lowered = setup.step.lower(setup.state, setup.frozen, setup.batch)
    report = Report(
        "train_step",
        job.slice,
        layout,
        arguments,
        setup.work.tokens,
        formula_flops=flops.by_formula(setup.work),
        model_flops=flops.model_flops(setup.work),
        runs=config.steps,
        price_per_chip_hour=job.price_per_chip_hour,
    )
    return _compiled(job, report, lowered, advice=_advice(job, config, mesh))


def answering(job: Job, config: TrainConfig, *, rows: int, prompt: int, slots: int) -> list[Report]:
    """Prefill and one decoding step of the evaluator, for that many rows of a cache of that many slots.

    Weights are in the configuration's `compute.dtype` where it keeps them in float32 to train them.
    """
    kept = config.compute.param_dtype
    dtype = config.compute.dtype if kept == "float32" else kept
    compute = Compute(config.compute.dtype, dtype, scan_layers=True, attention=config.compute.attention)
    mesh = make_mesh(config.mesh, job.devices)
    model = Llama(job.llama, compute, config.lora)
    fixed: dict[str, Any] = {"eos": (2,), "sampling": Sampling()}
    with sharding.use(mesh):
        init = lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
        variables = sharding.abstract(jax.eval_shape(init), mesh)
        state = _rows(model, mesh, rows, slots)
        vector = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=NamedSharding(mesh, sharding.BATCH))
        seed = jax.ShapeDtypeStruct((rows,), jnp.uint32, sharding=vector.sharding)
        tokens = jax.ShapeDtypeStruct((rows, prompt), jnp.int32, sharding=vector.sharding)
        enough = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
        step = functools.partial(decode.decode, model, block=1, **fixed)

        def read(variables, tokens, length, limit, seed):
            reading = decode.read(model, variables, decode.unread(model, rows, prompt), tokens, jnp.int32(0), length)
            return decode.begin(model, variables, reading, length, limit, seed, **fixed)

        lowered = {
            "prefill": jax.jit(read).lower(variables, tokens, vector, vector, seed),
            "decode_step": jax.jit(step, donate_argnums=1).lower(variables, state, state.done_B, enough),
        }
    arguments = {"prefill": variables, "decode_step": {"variables": variables, "rows": state}}
    layout = _layout(mesh) | {"rows": rows, "prompt": prompt, "slots": slots}
    taken = {"prefill": rows * prompt, "decode_step": rows}
    return [
        _compiled(job, Report(name, job.slice, layout, largest(arguments[name], LISTED), taken[name]), lowered[name])
        for name in lowered
    ]


def _compiled(job: Job, report: Report, lowered: jax.stages.Lowered, advice: tuple[str, ...] = ()) -> Report:
    try:
        done = compiler.compile(lowered)
    except OutOfMemory as shortage:
        return dataclasses.replace(report, shortage=shortage, advice=advice)
    cost = count(done.text, job.slice.chip)
    return dataclasses.replace(report, memory=done.memory, cost=cost, estimate=bracket(cost, job.slice, job.ratio))


def _rows(model: Llama, mesh: Mesh, rows: int, slots: int) -> Rows:
    """Abstract rows under way, laid out as decoding pins them."""
    shape = jax.eval_shape(functools.partial(decode.idle, model, rows, slots))
    cache = nn.logical_to_mesh_axes(("layers", "batch", "kv_heads"))

    def lay(where: PartitionSpec, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, where))

    small = jax.tree.map(functools.partial(lay, sharding.BATCH), dataclasses.replace(shape, cache=None))
    large = jax.tree.map(functools.partial(lay, cache), shape.cache)
    return dataclasses.replace(small, cache=large)


def _layout(mesh: Mesh) -> dict[str, Any]:
    return {axis: size for axis, size in mesh.shape.items() if size > 1} or {"chip": 1}


def _advice(job: Job, config: TrainConfig, mesh: Mesh) -> tuple[str, ...]:
    """What would make a training step smaller, the cheapest first."""
    found = []
    rows = config.data.batch_size // (mesh.shape["data"] * mesh.shape["fsdp"] * config.accumulation)
    if config.compute.remat != "full":
        found.append("--config.compute.remat=full: keep a layer's input alone and compute the rest anew")
    if config.compute.attention == "xla":
        found.append("--config.compute.attention=auto: attention without its [T, T] logits")
    if rows > 1:
        found.append(f"--config.accumulation={config.accumulation * rows}: one row of the batch on a chip at a time")
    if config.compute.loss_chunk > 128:
        found.append("--config.compute.loss_chunk=128: fewer logits at a time")
    if config.lora and config.compute.param_dtype == "float32":
        found.append("--config.compute.param_dtype=bfloat16: half the bytes of frozen weights")
    if config.lora is None:
        found.append("a configuration with lora: adapters alone have gradients and optimizer state")
    if mesh.shape["data"] > 1:
        found.append("--config.mesh.data=1: weights cut over all chips, not copied")
    larger = [
        shape for shape in chips.slices(job.slice.chip) if chips.Slice(job.slice.chip, shape).chips > job.slice.chips
    ]
    if larger:
        found.append(f"--topology={chips.Slice(job.slice.chip, larger[0]).name}: the next larger slice")
    return tuple(found)
