"""The package's programs compiled for a slice: the training step, prefill and a decoding step."""

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
from lema_jax.errors import UserError
from lema_jax.generation import lengths
from lema_jax.model import decode, flops
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.model.decode import Rows, Sampling
from lema_jax.model.llama import Llama
from lema_jax.parallel import chips, sharding
from lema_jax.parallel.chips import Slice
from lema_jax.parallel.mesh import make_mesh
from lema_jax.training.config import TrainConfig, require_shape, validate
from lema_jax.training.setup import Setup

LISTED = 8  # largest buffers of a report


@dataclasses.dataclass(frozen=True)
class Target:
    """The slice, its abstract devices and the architecture to compile for. `ratio`: see `estimate.calibration`."""

    slice: Slice
    devices: list[jax.Device]
    llama: LlamaConfig
    price_per_chip_hour: float = 0.0
    ratio: float | None = None


def train_step(target: Target, config: TrainConfig) -> Report:
    """The training step of a configuration.

    Raises:
      UserError: the configuration is not valid on this slice.
    """
    validate(config, len(target.devices))
    require_shape(config, target.llama, len(target.devices))
    mesh = make_mesh(config.mesh, target.devices)
    rows = f"{config.data.batch_size}×{config.data.seq_len}"
    with sharding.use(mesh):
        setup = Setup(config, target.llama, mesh)
        layout = _layout(mesh) | {"rows": rows, "accumulation": setup.accumulation, "remat": config.compute.remat}
        arguments = largest({"state": setup.state, "frozen": setup.frozen, "batch": setup.batch}, LISTED)
        lowered = setup.lowered_step()
    report = Report(
        program="train_step",
        slice=target.slice,
        layout=layout,
        arguments=arguments,
        tokens=setup.work.tokens,
        formula_flops=flops.by_formula(setup.work),
        model_flops=flops.model_flops(setup.work),
        runs=config.steps,
        price_per_chip_hour=target.price_per_chip_hour,
    )
    return _compiled(target, report, lowered, advice=_advice(target, config, mesh))


def require_rows(target: Target, config: TrainConfig, rows: int) -> None:
    """Refuses rows in flight that the mesh does not divide.

    Raises:
      UserError: that; or the mesh is no layout of the slice.
    """
    data, fsdp, *_ = config.mesh.resolve(len(target.devices))
    if rows % (ways := data * fsdp):
        near = -(-rows // ways) * ways
        raise UserError(f"--rows={rows} must divide by mesh data × fsdp = {data} × {fsdp} = {ways}; try {near}")


def prefill(target: Target, config: TrainConfig, *, rows: int, prompt: int) -> Report:
    """The evaluator's prefill: a chunk of `prompt` tokens of a group of rows, and the first tokens of their answers."""
    mesh, model, variables = _decoder(target, config)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    group = -(-min(rows, lengths.GROUP) // ways) * ways
    chunk, padded = lengths.chunks(prompt)
    with sharding.use(mesh):
        vector = _vector(mesh, group, jnp.int32)
        seed = _vector(mesh, group, jnp.uint32)
        tokens = jax.ShapeDtypeStruct((group, chunk), jnp.int32, sharding=vector.sharding)

        def program(
            variables: Any, tokens: jax.Array, length: jax.Array, limit: jax.Array, seed: jax.Array
        ) -> tuple[Rows, jax.Array]:
            prefilled = decode.prefill(
                model, variables, decode.empty_prefill(model, group, padded), tokens, jnp.int32(padded - chunk), length
            )
            return decode.first_tokens(model, variables, prefilled, length, limit, seed, **_GREEDY)

        lowered = jax.jit(program).lower(variables, tokens, vector, vector, seed)
    report = Report(
        program="prefill",
        slice=target.slice,
        layout=_layout(mesh) | {"rows": group, "chunk": chunk, "prompt": padded},
        arguments=largest(variables, LISTED),
        tokens=group * chunk,
    )
    return _compiled(target, report, lowered)


def decode_step(target: Target, config: TrainConfig, *, rows: int, cache_length: int) -> Report:
    """One decoding step of rows in flight with a cache of that length."""
    mesh, model, variables = _decoder(target, config)
    with sharding.use(mesh):
        state = _rows(model, mesh, rows, cache_length)
        enough = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
        step = functools.partial(decode.decode, model, block=1, **_GREEDY)
        lowered = jax.jit(step, donate_argnums=1).lower(variables, state, state.done_B, enough)
    report = Report(
        program="decode_step",
        slice=target.slice,
        layout=_layout(mesh) | {"rows": rows, "slots": cache_length},
        arguments=largest({"variables": variables, "rows": state}, LISTED),
        tokens=rows,
    )
    return _compiled(target, report, lowered)


_GREEDY: dict[str, Any] = {"eos": (2,), "sampling": Sampling()}


def _decoder(target: Target, config: TrainConfig) -> tuple[Mesh, Llama, Any]:
    """Mesh, model and abstract weights that answer.

    Float32 kernels, which a configuration stores to train them, are in its `compute.dtype` here.
    """
    dtype = config.compute.param_dtype
    if dtype == "float32":
        dtype = config.compute.dtype
    compute = Compute(config.compute.dtype, dtype, scan_layers=True, attention=config.compute.attention)
    mesh = make_mesh(config.mesh, target.devices)
    model = Llama(target.llama, compute, config.lora)
    with sharding.use(mesh):
        init = lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
        return mesh, model, sharding.abstract(jax.eval_shape(init), mesh)


def _vector(mesh: Mesh, rows: int, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((rows,), dtype, sharding=NamedSharding(mesh, sharding.BATCH))


def _compiled(target: Target, report: Report, lowered: jax.stages.Lowered, advice: tuple[str, ...] = ()) -> Report:
    try:
        done = compiler.compile(lowered)
    except OutOfMemory as shortage:
        return dataclasses.replace(report, shortage=shortage, advice=advice)
    cost = count(done.text, target.slice.chip)
    return dataclasses.replace(
        report, memory=done.memory, cost=cost, estimate=bracket(cost, target.slice, target.ratio)
    )


def _rows(model: Llama, mesh: Mesh, rows: int, cache_length: int) -> Rows:
    """Abstract rows in flight, sharded as `Rows.pinned` constrains them."""
    shape = jax.eval_shape(functools.partial(decode.idle, model, rows, cache_length))
    cache = nn.logical_to_mesh_axes(("layers", "batch", "kv_heads"))

    def shard(spec: PartitionSpec, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    small = jax.tree.map(functools.partial(shard, sharding.BATCH), dataclasses.replace(shape, cache=None))
    large = jax.tree.map(functools.partial(shard, cache), shape.cache)
    return dataclasses.replace(small, cache=large)


def _layout(mesh: Mesh) -> dict[str, Any]:
    return {axis: size for axis, size in mesh.shape.items() if size > 1} or {"chip": 1}


def _advice(target: Target, config: TrainConfig, mesh: Mesh) -> tuple[str, ...]:
    """Flags that reduce the memory of a training step, the cheapest first."""
    found = []
    sharded = mesh.shape["data"] * mesh.shape["fsdp"]
    times = config.micro_batches(sharded)
    rows = config.data.batch_size // (sharded * times)
    if config.compute.remat != "full":
        found.append("--config.compute.remat=full: store only a layer's input and recompute the rest")
    if config.compute.attention == "xla":
        found.append("--config.compute.attention=auto: attention without its [T, T] logits")
    if rows > 1:
        found.append(f"--config.accumulation={times * rows}: one row of the batch on a chip at a time")
    if config.compute.loss_chunk > 128:
        found.append("--config.compute.loss_chunk=128: fewer logits at a time")
    if config.lora and config.compute.param_dtype == "float32":
        found.append("--config.compute.param_dtype=bfloat16: half the bytes of frozen weights")
    if config.lora is None:
        found.append("a configuration with lora: only adapters have gradients and optimizer state")
    if mesh.shape["data"] > (slices := target.slice.count):
        over = "all chips" if slices == 1 else "all chips of a slice"
        found.append(f"--config.mesh.data={slices} --config.mesh.fsdp=-1: weights sharded over {over}, not replicated")
    larger = [
        shape
        for shape in chips.slices(target.slice.chip)
        if chips.Slice(target.slice.chip, shape).chips > target.slice.chips
    ]
    if larger:
        found.append(f"--topology={chips.Slice(target.slice.chip, larger[0]).name}: the next larger slice")
    return tuple(found)
