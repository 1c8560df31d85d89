import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lema_jax.model import layout
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training.config import DataConfig, GuardConfig, OptimizerConfig, TrainConfig
from lema_jax.training.nll import completion_nll
from lema_jax.training.objectives import sft
from lema_jax.training.optimizer import at_step
from lema_jax.training.setup import Setup
from tests import tiny

ROWS, LENGTH = 8, 12


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    """Two packed segments and some padding in every row, loss on the end of each segment."""
    segments = np.array([[1] * 5 + [2] * 5 + [0] * 2] * ROWS, np.int32)
    positions = np.array([[*range(5), *range(5), 0, 1]] * ROWS, np.int32)
    weights = ((positions >= 2) & (segments > 0)).astype(np.float32)
    weights[3] = 0  # a row without loss
    tokens = tiny.tokens(ROWS, LENGTH, seed)
    return {"tokens": tokens, "weights": weights, "segment_ids": segments, "positions": positions}


def settings(**fields) -> TrainConfig:
    return TrainConfig("-", DataConfig("-", ROWS, LENGTH), steps=1, init="-", **fields)


def train(
    steps: int, rows=batch, examples_per_step: int = 0, counts=None, rates=None, schedule_of: int = 0, **fields
) -> tuple[list[float], dict]:
    """Losses and final trained weights (stacked) of a few steps on the same random start; see `TrainConfig.steps` for
    `schedule_of`."""
    data = DataConfig("-", ROWS, LENGTH, examples_per_step=examples_per_step)
    settings = {"mesh": MeshConfig(1, 1, 1), "optimizer": OptimizerConfig(learning_rate=1e-2)} | fields
    config = TrainConfig(out="-", init="-", steps=schedule_of or steps, data=data, **settings)
    devices = jax.devices()[: np.prod([config.mesh.data, config.mesh.fsdp, config.mesh.tensor, config.mesh.sequence])]
    mesh = make_mesh(config.mesh, devices)
    with sharding.use(mesh):
        setup = Setup(config, tiny.CONFIG, mesh)
        start = tiny.variables(lora=config.lora)
        laid_out = start if config.compute.scan_layers else layout.unstack_layers(start)
        state = setup.begin(jax.device_put(laid_out[setup.collection], sharding.of(setup.state.trained)))
        frozen = {name: jax.device_put(laid_out[name], sharding.of(tree)) for name, tree in setup.frozen.items()}
        losses = []
        for number in range(steps):
            ordered = {name: array[setup.order] for name, array in rows(number).items()}
            placed = jax.device_put(ordered, sharding.of(setup.batch))
            state, metrics = setup.step(state, frozen, placed, setup.put_seed(config.seed))
            losses.append(float(metrics["loss"]))
            if counts is not None:
                counts.append((int(metrics["tokens"]), int(metrics["computed"])))
            if rates is not None:
                rates.append(float(metrics["learning_rate"]))
        return losses, jax.device_get(setup.to_disk(state).trained)


@functools.cache
def alone(lora: bool):
    return train(3, lora=tiny.LORA if lora else None)


@pytest.mark.slow
def test_the_seed_of_dropout_chooses_what_is_dropped():
    lora = LoraConfig(rank=4, alpha=8.0, dropout=0.5)
    (first, _), (again, _), (other, _) = (train(2, lora=lora, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first[0] != other[0]


SPLITS = {
    "data 8": {"mesh": MeshConfig(8, 1, 1)},
    "data 2 fsdp 2 tensor 2": {"mesh": MeshConfig(2, 2, 2)},
    "fsdp 2 tensor 2 sequence 2": {"mesh": MeshConfig(1, 2, 2, 2)},
    "accumulation": {"accumulation": 4},
    "fsdp and accumulation": {"mesh": MeshConfig(1, 2, 1), "accumulation": 2},
    "in line, rematerialised": {"compute": Compute(scan_layers=False, remat="full")},
}
QUICK = {
    ("data 2 fsdp 2 tensor 2", True),
    ("fsdp 2 tensor 2 sequence 2", False),
    ("accumulation", False),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "lora"),
    [
        pytest.param(
            fields,
            lora,
            id=f"{name}, {'lora' if lora else 'full'}",
            marks=() if (name, lora) in QUICK else pytest.mark.slow,
        )
        for name, fields in SPLITS.items()
        for lora in (False, True)
    ],
)
def test_the_split_of_the_work_changes_nothing(fields, lora):
    losses, trained = train(3, lora=tiny.LORA if lora else None, **fields)
    expected_losses, expected = alone(lora)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), trained, expected)


@pytest.mark.parametrize(
    ("fields", "computed"),
    [
        ({"accumulation": 4}, lambda full: np.arange(ROWS) % 4 < full),  # row r is in micro-batch r mod 4
        ({"accumulation": 0, "lora": tiny.LORA}, lambda full: np.arange(ROWS) < full),
        pytest.param(
            {"accumulation": 0, "mesh": MeshConfig(1, 2, 1)},
            lambda full: np.arange(ROWS) < -(-full // 2) * 2,  # a micro-batch is a row of each device
            marks=pytest.mark.slow,
        ),
    ],
)
def test_micro_batches_of_empty_rows_are_not_computed(fields, computed):
    """Were they, the weights there would spoil the sum. The packer fills the first rows."""
    full = lambda number: 2 + number

    def filled(there: float, number: int) -> dict[str, np.ndarray]:
        found = batch(number)
        for name in ("segment_ids", "weights"):
            found[name][full(number) :] = 0
        found["weights"][~computed(full(number))] = there
        return found

    expected_losses, expected = train(2, functools.partial(filled, 0.0), **fields | {"accumulation": 1})
    counts: list[tuple[int, int]] = []
    losses, trained = train(2, functools.partial(filled, np.nan), examples_per_step=3, counts=counts, **fields)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), trained, expected)
    assert counts == [(10 * full(number), LENGTH * computed(full(number)).sum()) for number in (0, 1)]


def plain_loss(variables, model, rows):
    """The definition, written out: mean of -log p over weighted targets of the same segment."""
    logits = tiny.apply(model, variables, rows["tokens"], rows["positions"], rows["segment_ids"])
    log_p = np.asarray(jax.nn.log_softmax(logits))
    total = weight = 0.0
    for b in range(ROWS):
        for t in range(1, LENGTH):
            if rows["segment_ids"][b, t] == rows["segment_ids"][b, t - 1]:
                total -= rows["weights"][b, t] * log_p[b, t - 1, rows["tokens"][b, t]]
                weight += rows["weights"][b, t]
    return total / weight


def test_the_loss_is_its_definition():
    model, variables, rows = Llama(tiny.CONFIG), tiny.variables(), batch()
    nll, sums = jax.jit(functools.partial(sft, model=model, collection="params"))(
        variables["params"], {}, rows, jax.random.key(0)
    )
    np.testing.assert_allclose(nll / sums["loss_tokens"], plain_loss(variables, model, rows), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [3, 5, 11, 12])
def test_the_loss_does_not_depend_on_its_chunks(chunk):
    random = np.random.default_rng(0)
    x, head = random.normal(size=(2, 11, 4)), random.normal(size=(4, 9))
    targets, weights = random.integers(0, 9, (2, 11)), (random.random((2, 11)) < 0.4).astype(np.float32)

    def chunked(x, head):
        return 3 * completion_nll(lambda head, x: x @ head, chunk, head, x, targets, weights)

    def whole(x, head):
        log_p = jax.nn.log_softmax(x @ head)
        return -3 * jnp.sum(jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0] * weights)

    np.testing.assert_allclose(jax.jit(chunked)(x, head), whole(x, head), rtol=1e-5)
    gradients = jax.jit(jax.grad(chunked, argnums=(0, 1)))(x, head), jax.grad(whole, argnums=(0, 1))(x, head)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)
    frozen = jax.jit(jax.grad(chunked))(x, head)  # a head that is not trained is another program
    np.testing.assert_allclose(frozen, gradients[0][0], rtol=1e-5)


@pytest.mark.slow
def test_the_gradient_of_a_head_in_bfloat16_does_not_depend_on_its_chunks():
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(1, 2048, 4)), jnp.bfloat16)
    head = jnp.asarray(random.normal(size=(4, 9)), jnp.bfloat16)
    targets, weights = random.integers(0, 9, (1, 2048)), np.ones((1, 2048), np.float32)

    def gradient(chunk):
        nll = lambda head: completion_nll(lambda head, x: x @ head, chunk, head, x, targets, weights)
        return np.asarray(jax.jit(jax.grad(nll))(head), np.float32)

    whole = gradient(2048)
    assert np.linalg.norm(gradient(8) - whole) < 0.005 * np.linalg.norm(whole)


@pytest.mark.slow
def test_a_batch_without_loss_gives_zero_and_moves_nothing():
    rows = batch() | {"weights": np.zeros((ROWS, LENGTH), np.float32)}
    config = TrainConfig(
        "-",
        DataConfig("-", ROWS, LENGTH),
        1,
        "-",
        optimizer=OptimizerConfig(weight_decay=0.0),
        mesh=MeshConfig(1, 1, 1),
    )
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    with sharding.use(mesh):
        setup = Setup(config, tiny.CONFIG, mesh)
        before = tiny.variables()["params"]
        state = setup.begin(jax.device_put(before, sharding.of(setup.state.trained)))
        placed = jax.device_put(rows, sharding.of(setup.batch))
        state, metrics = setup.step(state, {}, placed, setup.put_seed(0))
    assert metrics["loss"] == 0
    assert metrics["grad_norm"] == 0
    jax.tree.map(np.testing.assert_array_equal, state.trained, tiny.variables()["params"])


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0.0, 1e-6])
def test_an_ill_step_changes_nothing_but_the_count(bound):
    """A weight that is no number makes a loss that is none; a bound that every gradient exceeds is the same."""
    config = TrainConfig(
        "-",
        DataConfig("-", ROWS, LENGTH),
        1,
        init="-",
        mesh=MeshConfig(1, 1, 1),
        guard=GuardConfig(max_grad_norm=bound),
    )
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    rows = batch()
    if not bound:
        rows["weights"][0, 2] = np.inf
    with sharding.use(mesh):
        setup = Setup(config, tiny.CONFIG, mesh)
        state = setup.begin(jax.device_put(tiny.variables()["params"], sharding.of(setup.state.trained)))
        before = jax.device_get(state)
        placed = jax.device_put(rows, sharding.of(setup.batch))
        state, metrics = setup.step(state, {}, placed, setup.put_seed(0))
    assert metrics["skipped"]
    assert state.step == 1
    after = jax.device_get(state)
    jax.tree.map(np.testing.assert_array_equal, (after.trained, after.optimizer), (before.trained, before.optimizer))


@pytest.mark.slow
def test_the_learning_rate_is_that_of_the_step_whatever_was_skipped():
    """Of one step, cosine ends at zero: the update after a skipped one moves nothing."""
    rates, rows = [], [batch() | {"weights": np.full((ROWS, LENGTH), np.inf, np.float32)}, batch()]
    optimizer = OptimizerConfig(learning_rate=0.5, schedule="cosine")
    _, trained = train(2, rows.__getitem__, optimizer=optimizer, schedule_of=1, rates=rates)
    assert rates == [0.5, 0.0]
    jax.tree.map(np.testing.assert_array_equal, trained, tiny.variables()["params"])


@pytest.mark.slow
def test_only_the_adapters_are_trained_and_have_optimizer_state():
    config = TrainConfig(
        "-", DataConfig("-", ROWS, LENGTH), 1, init="-", lora=LoraConfig(rank=4), mesh=MeshConfig(1, 1, 1)
    )
    setup = Setup(config, tiny.CONFIG, make_mesh(config.mesh, jax.devices()[:1]))
    assert set(setup.frozen) == {"params"}
    adapters = sum(leaf.size for leaf in jax.tree.leaves(setup.state.trained))
    moments = sum(leaf.size for leaf in jax.tree.leaves(setup.state.optimizer) if leaf.ndim)
    assert moments == 2 * adapters


def test_optimizer_state_is_cut_like_its_parameter():
    config = settings(mesh=MeshConfig(1, 4, 2))
    setup = Setup(config, tiny.CONFIG, make_mesh(config.mesh))
    specs = lambda tree: [leaf.sharding.spec for leaf in jax.tree.leaves(tree) if leaf.ndim]
    weights = specs(setup.state.trained)
    assert specs(setup.state.optimizer) == weights * 2


def test_an_optimizer_whose_rate_is_a_number_counts_no_steps():
    state = optax.adamw(1e-3).init({"w": jnp.zeros(2)})
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), at_step(state, jnp.int32(7)), state))
