import jax
import numpy as np
import pytest

from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.generation import engine as engine_module
from lema_jax.generation.engine import Engine, ladder
from lema_jax.model import layout
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.model.decode import Sampling
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from tests import tiny

CONFIG = LlamaConfig(**tiny.CONFIG.__dict__ | {"max_positions": 96})
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
PROMPTS = [" ".join(np.random.default_rng(n).permutation(WORDS)[: 1 + n % 9]) for n in range(13)]
SEEDS = list(range(100, 113))


@pytest.fixture(scope="module")
def words():
    return tokenizer.train_bpe([" ".join(WORDS)], 704)


def run(words, prompts=PROMPTS, seeds=SEEDS, *, rows=4, sampling=Sampling(), new=20, sizes=(1, 1, 1), scan=True):  # noqa: B008
    compute = Compute(scan_layers=scan)
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    model = Llama(CONFIG, compute)
    variables = tiny.variables(CONFIG) if scan else layout.unstack_layers(tiny.variables(CONFIG))
    from lema_jax.checkpoint import abstract_variables

    with sharding.use(mesh):
        variables = jax.device_put(variables, sharding.of(abstract_variables(model, mesh)))
    made = Engine(model, variables, words, mesh, rows=rows, sampling=sampling, max_new_tokens=new)
    return {done.index: done for done in made.complete(prompts, seeds)}


def greedy_by_hand(words, prompt: str, new: int) -> list[int]:
    """No cache, no batch: the whole sequence anew for every token."""
    from lema_jax.data.encode import prompt_ids

    model, variables = Llama(CONFIG), tiny.variables(CONFIG)
    start = prompt_ids(prompt, words)
    ids = np.zeros((1, CONFIG.max_positions), np.int32)
    ids[0, : len(start)] = start
    made: list[int] = []
    while len(made) < min(new, CONFIG.max_positions - len(start)):
        at = len(start) + len(made)
        made.append(int(np.argmax(tiny.apply(model, variables, ids)[0, at - 1])))
        if made[-1] == words.eos_token_id:
            break
        ids[0, at] = made[-1]
    return made


@pytest.fixture(scope="module")
def alone(words):
    return run(words, rows=1)


def test_greedy_answers_are_those_without_cache_and_batch(words, alone):
    for index in (0, 4, 8):
        by_hand = greedy_by_hand(words, PROMPTS[index], 20)
        ended = by_hand[-1] == words.eos_token_id
        assert alone[index].text == words.decode(by_hand, skip_special_tokens=True)
        assert alone[index].completion_tokens == len(by_hand)
        assert alone[index].truncated != ended


@pytest.mark.parametrize(
    "fields",
    [{"rows": 3}, {"rows": 32}, {"rows": 8, "sizes": (2, 2, 2)}, {"scan": False, "rows": 5}],
    ids=["refilled", "one batch", "on a mesh", "in line"],
)
def test_an_answer_does_not_depend_on_what_runs_beside_it(words, alone, fields):
    assert run(words, **fields) == alone


def test_the_order_of_the_prompts_does_not_matter(words, alone):
    turned = run(words, PROMPTS[::-1], SEEDS[::-1], rows=4)
    assert [turned[12 - n].text for n in range(13)] == [alone[n].text for n in range(13)]


def test_a_block_boundary_changes_nothing(words, alone, monkeypatch):
    monkeypatch.setattr(engine_module, "BLOCK", 7)
    assert run(words, rows=4) == alone


def test_a_sample_depends_on_its_prompt_and_seed_alone(words):
    sampling = Sampling(temperature=1.0, top_p=0.9)
    alone = run(words, rows=1, sampling=sampling)
    assert run(words, rows=5, sampling=sampling) == alone
    assert run(words, seeds=[seed + 1 for seed in SEEDS], rows=5, sampling=sampling) != alone


def test_sampling_follows_the_distribution_cut_to_its_nucleus():
    from lema_jax.model.decode import _choose

    p = np.array([0.5, 0.3, 0.15, 0.05])
    n = 4000
    logits = np.tile(np.log(p).astype(np.float32), (n, 1))
    keys = jax.random.split(jax.random.key(0), n)
    draw = lambda **how: np.bincount(_choose(logits, keys, np.zeros(n, np.int32), Sampling(**how)), minlength=4) / n
    np.testing.assert_allclose(draw(temperature=1.0), p, atol=0.03)
    np.testing.assert_allclose(draw(temperature=1.0, top_p=0.75), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(draw(temperature=0.5), p**2 / np.sum(p**2), atol=0.03)
    np.testing.assert_array_equal(draw(temperature=0.0), [1, 0, 0, 0])


def test_an_answer_ends_at_the_context(words):
    long = " ".join(WORDS * 5)
    done = run(words, [long], [0], new=2048)[0]
    assert done.prompt_tokens + done.completion_tokens <= CONFIG.max_positions
    with pytest.raises(UserError, match="the model's context is 96"):
        run(words, [" ".join(WORDS * 30)], [0])


def test_programs_are_bounded_by_the_ladder():
    assert [ladder(n) for n in (1, 32, 33, 48, 49, 64, 65, 97, 129)] == [32, 32, 48, 48, 64, 64, 96, 128, 192]
    assert all(ladder(n) >= n for n in range(1, 5000))
    assert len({ladder(n) for n in range(1, 4097)}) <= 16
