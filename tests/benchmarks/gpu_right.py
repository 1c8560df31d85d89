"""Whether what we compute on a GPU is right: against itself, against torch (gpu_torch expect), against the CPU.

    JAX_DEFAULT_MATMUL_PRECISION=highest python -m tests.benchmarks.gpu_right model|greedy|losses|nf4|resume

Every line has what was found beside the bar that it is held to, and `right`.
"""

import dataclasses
import functools
import json
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lema_jax import checkpoint
from lema_jax.data.batches import DataConfig
from lema_jax.generation import student
from lema_jax.model import cache, nf4
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training import loop
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from lema_jax.training.step import State, train_step
from lema_jax.weights import peft
from tests.benchmarks import gpu_lines
from tests.benchmarks.gpu_lines import DRY, SIZES, STEPS, WORK, case

OPTIMIZER = OptimizerConfig(gpu_lines.LEARNING_RATE, weight_decay=gpu_lines.WEIGHT_DECAY, clip_norm=gpu_lines.CLIP)


def read(compute: Compute) -> tuple[Any, Any, Any]:
    """The model's mesh, program and variables."""
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    with sharding.use(mesh):
        card, variables = checkpoint.load_weights(WORK / "model", mesh, compute)
    return mesh, Llama(card.config, compute), variables


def followed() -> list[dict[str, np.ndarray]]:
    arrays = np.load(WORK / "followed.npz", allow_pickle=False)
    return [{name: array[step] for name, array in arrays.items() if name != "records"} for step in range(STEPS)]


def logits(model: Llama, variables: Any, tokens: Any, positions: Any, segments: Any) -> jax.Array:
    x_BTD = model.apply(variables, tokens, positions, segments, method="trunk")
    return model.apply(variables, x_BTD, method="logits")


def packed_is_separate(dtype: str, kind: str) -> None:
    with case("right", f"packed = separate, {dtype}, {kind}") as found:
        _, model, variables = read(Compute(dtype=dtype, param_dtype=dtype, attention=kind))
        row = {name: array[0] for name, array in followed()[0].items()}
        count = int(row["segment_ids"].max())
        alone = {
            name: np.zeros((count, len(row["tokens"])), np.int32) for name in ("tokens", "positions", "segment_ids")
        }
        for segment in range(count):
            of = row["segment_ids"] == segment + 1
            for name in ("tokens", "positions"):
                alone[name][segment, : of.sum()] = row[name][of]
            alone["segment_ids"][segment, : of.sum()] = 1
        run = jax.jit(functools.partial(logits, model))
        order = ("tokens", "positions", "segment_ids")
        together = np.asarray(run(variables, *(row[name][None] for name in order))[0])
        apart = np.asarray(run(variables, *(alone[name] for name in order)))
        found["segments"], worst = count, 0.0
        for segment in range(count):
            of = row["segment_ids"] == segment + 1
            worst = max(worst, float(np.abs(together[of] - apart[segment, : of.sum()]).max()))
        found["largest_difference"], found["largest_logit"] = worst, float(np.abs(together).max())
        found["right"] = worst < (1e-3 if dtype == "float32" else 0.05 * found["largest_logit"])
    with case("right", f"nothing crosses a segment, {dtype}, {kind}") as found:
        segments = row["segment_ids"]
        tokens = segments * 64 + np.random.default_rng(0).integers(0, 64, segments.shape, dtype=np.int32)
        asked = segments == segments.max()  # the last: all others come before it

        def loss(params: Any) -> jax.Array:
            inputs = (tokens[None], row["positions"][None], segments[None])
            x_BTD = model.apply({"params": params}, *inputs, method="trunk")
            return jnp.sum(jnp.where(asked[None, :, None], x_BTD.astype(jnp.float32), 0.0) ** 2)

        gradient = np.abs(np.asarray(jax.jit(jax.grad(loss))(variables["params"])["embed"]["embedding"], np.float32))
        own = np.isin(np.arange(len(gradient)), tokens[asked])
        found["largest_of_others"], found["largest_own"] = float(gradient[~own].max()), float(gradient[own].max())
        found["right"] = found["largest_of_others"] == 0 < found["largest_own"]


def of_model() -> None:
    packed_is_separate("float32", "xla")
    for kind in ("xla", "cudnn", "triton"):
        packed_is_separate("bfloat16", kind)
    _, model, variables = read(Compute())
    batch = followed()[0]
    with case("right", "cached = uncached, float32") as found:
        tokens = batch["tokens"][:2, :64]
        positions, whole = np.tile(np.arange(64, dtype=np.int32), (2, 1)), np.ones((2, 64), np.int32)
        at_once = np.asarray(jax.jit(functools.partial(logits, model))(variables, tokens, positions, whole))
        kept = cache.empty(model.config, model.compute, 2, 64)
        extend = jax.jit(functools.partial(model.apply, method="extend"))
        of = jax.jit(functools.partial(model.apply, method="logits"))
        worst = 0.0
        for start, stop in [(0, 48), *((at, at + 1) for at in range(48, 64))]:
            x_BTD, kept = extend(variables, tokens[:, start:stop], np.full(2, start, np.int32), kept)
            worst = max(worst, float(np.abs(np.asarray(of(variables, x_BTD)) - at_once[:, start:stop]).max()))
        found["largest_difference"], found["right"] = worst, worst < 1e-3
    with case("right", "logits of transformers, float32") as found:
        theirs = np.load(WORK / "expected.npz", allow_pickle=False)["logits"]
        order = (batch[name] for name in ("tokens", "positions", "segment_ids"))
        ours = np.asarray(jax.jit(functools.partial(logits, model))(variables, *order))
        ours, real = ours[: len(theirs), :128], batch["segment_ids"][: len(theirs), :128] > 0
        found["largest_difference"] = float(np.abs(ours - theirs)[real].max())
        found["largest_logit"] = float(np.abs(theirs).max())
        found["right"] = found["largest_difference"] < 1e-3


def greedy() -> None:
    prompts = json.loads((WORK / "prompts.json").read_text())
    prompts = (prompts * SIZES.prompts)[: SIZES.prompts]
    step = checkpoint.latest_step(WORK / "model")
    model = student.read(WORK / "model", step, "float32")

    def texts(read: Any, asked: list[str], rows: int, new: int) -> list[str]:
        done = student.engine(read, rows=rows, max_new_tokens=new).complete(asked)
        return [one.text for one in sorted(done, key=lambda one: one.index)]

    with case("right", "greedy answers of generate, float32") as found:
        words, theirs = model.tokenizer, []
        for ids in json.loads((WORK / "answers.json").read_text()):
            ids = ids[:-1] if ids and ids[-1] == words.eos_token_id else ids
            theirs.append(words.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        ours = texts(model, prompts[: len(theirs)], 32, SIZES.greedy)
        found["asked"], found["tokens_each"] = len(theirs), SIZES.greedy
        found["differ"] = [n for n, (one, other) in enumerate(zip(ours, theirs)) if one != other]
        found["distinct"], found["right"] = len(set(theirs)), not found["differ"]
    for dtype, sizes in (("float32", (32, 1, 7, 128)), ("bfloat16", (32, 128))):
        with case("right", f"answers at several batch sizes, {dtype}") as found:
            read = model if dtype == "float32" else student.read(WORK / "model", step, dtype)
            few, by_rows = prompts[:32], {}
            for rows in sizes:
                by_rows[rows] = texts(read, prompts if rows == 128 else few, rows, SIZES.greedy // 2)[: len(few)]
            first = by_rows.pop(32)
            found["asked"] = len(first)
            found["differ_from_32_rows"] = {
                str(rows): sum(one != other for one, other in zip(found_, first)) for rows, found_ in by_rows.items()
            }
            found["right"] = not any(found["differ_from_32_rows"].values())


def losses() -> None:
    expected = np.load(WORK / "expected.npz", allow_pickle=False)
    for name in ("full", "lora"):
        with case("right", f"losses over {STEPS} steps, {name}, float32") as found:
            _, model, variables = read(Compute())
            trained, frozen, collection = variables["params"], {}, "params"
            if name == "lora":
                adapters, lora, *_ = peft.load_adapter(WORK / "adapter", model.config)
                model, trained = model.clone(lora=lora), jax.tree.map(jnp.array, adapters)
                frozen, collection = variables, "lora"
            schedule = learning_rate(OPTIMIZER, STEPS)
            optimizer = make_optimizer(OPTIMIZER, schedule)
            how = {"model": model, "collection": collection, "optimizer": optimizer, "accumulation": 1}
            step = jax.jit(functools.partial(train_step, **how, schedule=schedule, max_grad_norm=1e9))
            state, ours = State(jnp.int32(0), trained, optimizer.init(trained)), []
            for batch in followed():
                state, metrics = step(state, frozen, batch, jnp.uint32(0))
                ours.append(float(metrics["loss"]))
            theirs = expected[name].tolist()
            found["ours"], found["torch"] = ([round(loss, 5) for loss in (one[0], one[-1])] for one in (ours, theirs))
            found["largest_relative"] = max(abs(one - other) / other for one, other in zip(ours, theirs))
            found["right"] = found["largest_relative"] < 1e-3


def of_nf4() -> None:
    with case("right", "nf4 equals the CPU's, to the bit") as found:
        kernel = np.random.default_rng(0).normal(size=(2, 1536, 576)).astype(np.float32)
        made = []
        for device in (jax.devices()[0], jax.devices("cpu")[0]):
            held = nf4.quantise(jax.device_put(kernel, device))
            dense = [jax.jit(nf4.dequantise, static_argnums=1)(held, dtype) for dtype in ("float32", "bfloat16")]
            made.append([np.asarray(leaf) for leaf in (*jax.tree.leaves(held), *dense)])
        found["devices"] = [str(jax.devices()[0]), str(jax.devices("cpu")[0])]
        names = ("codes", "magnitudes", "scale", "mean", "float32", "bfloat16")
        found["differ"] = {name: int((one != other).sum()) for name, one, other in zip(names, *made)}
        worst = np.abs(made[0][4] - made[1][4]).max()
        # In float32 a GPU fuses multiply and add, which rounds once where a CPU rounds twice.
        exact = not any(count for name, count in found["differ"].items() if name != "float32")
        found["largest_difference"], found["right"] = float(worst), exact and bool(worst < 1e-6)


def resume() -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    config = checkpoint.read_metadata(WORK / "model").config
    rows, length = SIZES.followed
    at = WORK / f"resume{len(flags)}"
    plain = TrainConfig(
        str(at / "straight"),
        DataConfig(str(WORK / "data"), rows, length),
        steps=6,
        model=dataclasses.replace(config, num_layers=2),
        compute=Compute(dtype="bfloat16"),
        checkpoint_every=3,
        log_every=1,
    )
    run = functools.partial(loop.run, allow_config_change=True)
    with case("right", f"resumed = straight, bfloat16, full, {flags or 'no flags'}") as found:
        run(plain)
        run(dataclasses.replace(plain, out=str(at / "again")))
        run(dataclasses.replace(plain, out=str(at / "resumed"), steps=3))
        run(dataclasses.replace(plain, out=str(at / "resumed")))
        mesh, weights = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]), {}
        for name in ("straight", "again", "resumed"):
            with sharding.use(mesh):
                tree = checkpoint.load_weights(at / name, mesh, Compute(), 6)[1]
            weights[name] = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])
        for name in ("again", "resumed"):
            found[f"{name}_differ"] = int((weights[name] != weights["straight"]).sum())
            found[f"{name}_largest"] = float(np.abs(weights[name] - weights["straight"]).max())
        found["weights"], found["right"] = weights["straight"].size, found["resumed_differ"] == 0


if __name__ == "__main__":
    assert DRY or jax.default_backend() == "gpu", jax.default_backend()
    {"model": of_model, "greedy": greedy, "losses": losses, "nf4": of_nf4, "resume": resume}[sys.argv[1]]()
