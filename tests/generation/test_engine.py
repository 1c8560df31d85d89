import collections
import copy

import jax
import numpy as np
import pytest

from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.generation import engine as engine_module
from lema_jax.generation import lengths
from lema_jax.generation.engine import GREEDY, Engine
from lema_jax.generation.lengths import bucket
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


def engine(
    words, *, rows=4, sampling=GREEDY, new=20, sizes=(1, 1, 1), scan=True, config=CONFIG, dtype="float32", **how
) -> Engine:
    compute = Compute(dtype=dtype, param_dtype=dtype, scan_layers=scan)
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    model = Llama(config, compute)
    variables = tiny.variables(config) if scan else layout.unstack_layers(tiny.variables(config))
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    from lema_jax.checkpoint import abstract_variables

    with sharding.use(mesh):
        variables = jax.device_put(variables, sharding.of(abstract_variables(model, mesh)))
    return Engine(model, variables, words, mesh, rows=rows, sampling=sampling, max_new_tokens=new, **how)


def run(words, prompts=PROMPTS, seeds=SEEDS, **how):
    return {done.index: done for done in engine(words, **how).complete(prompts, seeds)}


def greedy_by_hand(words, prompt: str, new: int) -> list[int]:
    """No cache, no batch: the full sequence again for every token."""
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


def test_samples_of_a_question_are_tokenised_once(words, monkeypatch):
    asked = []
    monkeypatch.setattr(engine_module, "prompt_ids", lambda prompt, *_, **__: asked.append(prompt) or [9] * 999)
    assert all(done.too_long for done in engine(words).complete([*PROMPTS, *PROMPTS]))
    assert asked == list(dict.fromkeys(PROMPTS))


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


@pytest.mark.long
def test_an_answer_from_an_int8_cache_does_not_depend_on_the_batch(words):
    alone = run(words, rows=1, cache="int8")
    assert run(words, rows=3, cache="int8") == alone
    assert run(words, rows=8, cache="int8", sizes=(2, 2, 2)) == alone
    assert run(words, rows=4, cache="int8", scan=False) == alone


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"rows": 7},
        {"rows": 32},
        pytest.param({"rows": 128}, marks=pytest.mark.long),
        pytest.param({"rows": 4, "sizes": (2, 1, 1)}, marks=pytest.mark.long),
        pytest.param({"rows": 8, "sizes": (2, 2, 2)}, marks=pytest.mark.long),
        {"rows": 4, "sizes": (2, 1, 4)},  # four parts of two key/value heads
        {"scan": False, "rows": 5},
    ],
    ids=["refilled", "one batch", "more rows than prompts", "two devices", "on a mesh", "heads repeated", "in line"],
)
def test_an_answer_does_not_depend_on_what_runs_beside_it(words, alone, fields):
    assert run(words, **fields) == alone


@pytest.mark.slow
def test_the_order_of_the_prompts_does_not_matter(words, alone):
    turned = run(words, PROMPTS[::-1], SEEDS[::-1], rows=4)
    assert [turned[12 - n].text for n in range(13)] == [alone[n].text for n in range(13)]


@pytest.mark.long
def test_in_bfloat16_fixed_shapes_keep_the_others_in_flight_out_of_an_answer(words):
    """At one batch size: in any order, and after a restart that asks for a few."""
    how = {"rows": 4, "dtype": "bfloat16", "fixed_shapes": True}
    whole = run(words, **how)
    turned = run(words, PROMPTS[::-1], SEEDS[::-1], **how)
    assert [turned[12 - n].text for n in range(13)] == [whole[n].text for n in range(13)]
    made = engine(words, **how)
    assert {done.index: done for done in made.complete(PROMPTS, SEEDS, {2, 7})} == {n: whole[n] for n in (2, 7)}
    assert sum(program is engine_module._DECODE for program, _ in made.tally.programs) == 1


@pytest.mark.slow
def test_a_prompt_that_is_padded_beyond_its_answer_leaves_the_fixed_shape(words, monkeypatch):
    monkeypatch.setattr(lengths, "CHUNK", 32)
    prompts = [" ".join(WORDS * 2), " ".join(WORDS * 3), " ".join(WORDS)]
    made = engine(words, new=2, block=4, fixed_shapes=True)
    assert len(list(made.complete(prompts))) == 3
    assert sum(program is engine_module._DECODE for program, _ in made.tally.programs) == 1


@pytest.mark.slow
def test_a_block_boundary_changes_nothing(words, alone):
    assert run(words, rows=4, block=7) == alone


def test_a_prompt_prefilled_in_chunks_is_answered_the_same(words, alone, monkeypatch):
    monkeypatch.setattr(lengths, "CHUNK", 4)
    assert run(words, rows=4) == alone


@pytest.mark.slow
def test_a_shared_prefix_is_prefilled_once(words, monkeypatch):
    prompts = [" ".join([*WORDS, word]) for word in WORDS[:6]]
    apart = run(words, prompts, rows=4)
    monkeypatch.setattr(lengths, "PREFIX", 5)
    made = engine(words, rows=4)
    assert {done.index: done for done in made.complete(prompts, SEEDS)} == apart
    reads = [shapes for program, shapes in made.tally.programs if program is engine_module._SHARE]
    assert reads  # the groups began with what was read before


@pytest.mark.slow
def test_prompts_completed_later_are_prefilled_as_at_first(words, monkeypatch):
    """Though they begin alike for longer than all do, and other lengths would be beside them."""
    calls: list[tuple[int, tuple[int, int]]] = []

    def noted(self, prefix, start, prompts, rows, read=Engine._prefill):
        calls.append((start, lengths.chunks(max(map(len, prompts)) - start)))
        return read(self, prefix, start, prompts, rows)

    monkeypatch.setattr(Engine, "_prefill", noted)
    monkeypatch.setattr(lengths, "PREFIX", 2)
    monkeypatch.setattr(lengths, "bucket", lambda length: -(-length // 8) * 8)
    prompts = ["one two three", *(" ".join([*WORDS, *WORDS[:more]]) for more in range(1, 8))]
    made = engine(words, rows=4)
    whole = {done.index: done for done in made.complete(prompts, SEEDS)}
    reads = set(calls)
    calls.clear()
    assert {done.index: done for done in made.complete(prompts, SEEDS, {2, 7})} == {n: whole[n] for n in (2, 7)}
    assert len(calls) == 3  # the beginning, and each alone
    assert set(calls) < reads
    assert list(made.complete(prompts, SEEDS, ())) == []


def test_a_shared_prefix_leaves_each_prompt_a_token():
    beginning = list(range(100))
    share = lengths.shared_prefix
    assert share([[*beginning, 7], [*beginning, 8]]) == 96
    assert share([beginning, beginning]) == 96
    assert share([beginning[:64], beginning]) == 32
    assert share([beginning, [7]]) == share([beginning]) == 0


def test_an_answer_ends_before_a_stop_string(words, alone):
    whole = next(done for done in alone.values() if len(done.text) > 20)
    stop = whole.text[7:12]
    found = run(words, rows=4, stop=("never said", stop))
    for index, done in alone.items():
        text, stopped, _ = done.text.partition(stop)
        assert found[index].text == text
        assert found[index].truncated == (done.truncated and not stopped)
        assert (found[index].completion_tokens < done.completion_tokens) or not stopped


@pytest.mark.slow
def test_an_answer_ends_at_any_of_several_tokens(words):
    made = {index: greedy_by_hand(words, PROMPTS[index], 20) for index in range(4)}
    ends = (made[0][5], made[1][0])
    found = run(words, rows=4, eos_ids=ends)
    for index, ids in made.items():
        end = next((at for at, id in enumerate(ids) if id in (*ends, words.eos_token_id)), None)
        assert found[index].text == words.decode(ids[:end], skip_special_tokens=True)
        assert found[index].truncated == (end is None)
    assert found[1].completion_tokens == 1


@pytest.mark.slow
def test_a_stream_is_the_completion_in_parts(words, alone):
    for index in (0, 4):
        parts = list(engine(words, rows=1, block=3).stream(PROMPTS[index]))
        assert "".join(parts) == alone[index].text
        assert len(parts) > 2


def test_a_stream_holds_back_half_characters_and_the_beginnings_of_stop_strings(words):
    streaming = engine(words, stop=("\n\nQ",))
    settled = lambda ids: streaming._settled(engine_module._Request(0, [], 0, made=ids))
    ids = words("né", add_special_tokens=False).input_ids
    assert [settled(ids[:size]) for size in range(1, len(ids) + 1)] == ["n", "n", "né"]
    assert settled(words("one\n", add_special_tokens=False).input_ids) == "one"


def test_row_steps_are_counted(words):
    made = engine(words, rows=4)
    done = list(made.complete(PROMPTS, SEEDS))
    # the first token of each answer comes of reading the prompt
    assert made.tally.useful == sum(one.completion_tokens - 1 for one in done) <= made.tally.row_steps
    assert "programs" in str(made.tally)


def test_programs_do_not_grow_with_the_prompts(words):
    few, many = engine(words, rows=4), engine(words, rows=4)
    list(few.complete(PROMPTS))
    list(many.complete(PROMPTS * 5))
    of_samples = {program for program in many.tally.programs if program[0] is engine_module._REPEAT}
    assert many.tally.programs - of_samples == few.tally.programs


@pytest.mark.long
def test_programs_are_as_many_as_buckets_whatever_the_lengths(words):
    programs = set()
    for seed in range(5):
        random = np.random.default_rng(seed)
        prompts = [" ".join(random.choice(WORDS, size)) for size in random.integers(1, 80, 11)]
        made = engine(words, rows=8, new=int(random.integers(2, 60)), block=4)
        list(made.complete(prompts))
        programs |= made.tally.programs
    buckets = {bucket(length) for length in range(1, CONFIG.max_positions + 4)}
    count = collections.Counter(program for program, _ in programs)
    assert count.pop(engine_module._GROW) <= 2 * len(buckets)  # rows, and a group of them
    assert max(count.values()) <= len(buckets)


@pytest.mark.long
def test_programs_do_not_depend_on_when_answers_end(words):
    """Nor on how long the cache was that grew, or that a prompt came into."""
    made = {stop: engine(words, rows=4, new=60, block=4, stop=stop) for stop in ((), ("e",), ("s",))}
    ended = [[done.index for done in one.complete(PROMPTS)] for one in made.values()]
    assert ended[0] != ended[1] != ended[2] != ended[0]
    assert made[("e",)].tally.programs == made[("s",)].tally.programs == made[()].tally.programs


@pytest.mark.long
def test_a_program_is_compiled_once_whatever_made_its_rows(words):
    """jit compiles a program for each sharding of its inputs, so the shardings of outputs are pinned."""
    own = LlamaConfig(**CONFIG.__dict__ | {"num_layers": 3})  # shapes that no other test has compiled for
    long = " ".join(WORDS * 3)
    begun_long, grown = (engine(words, rows=8, new=40, sizes=(2, 2, 2), config=own) for _ in range(2))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    try:
        list(begun_long.complete([long]))
        list(grown.complete([*PROMPTS, long]))
    finally:
        jax.monitoring.clear_event_listeners()
    assert len(compiled) == len(begun_long.tally.programs | grown.tally.programs)


@pytest.mark.slow
def test_a_sample_depends_on_its_prompt_and_seed_alone(words):
    sampling = Sampling(temperature=1.0, top_p=0.9)
    alone = run(words, rows=1, sampling=sampling)
    assert run(words, rows=5, sampling=sampling) == alone
    assert run(words, seeds=[seed + 1 for seed in SEEDS], rows=5, sampling=sampling) != alone


@pytest.mark.slow
@pytest.mark.parametrize("rows", [5, pytest.param(3, marks=pytest.mark.long), pytest.param(32, marks=pytest.mark.long)])
def test_samples_of_a_prompt_share_its_prefill_and_are_those_of_it_alone(words, monkeypatch, rows):
    """Whatever the batch: more samples than rows, fewer, and prompts between whose samples a batch ends."""
    prefilled: list[int] = []

    def counted(self, prefix, start, prompts, rows, read=Engine._prefill):
        prefilled.append(len(prompts))
        return read(self, prefix, start, prompts, rows)

    monkeypatch.setattr(Engine, "_prefill", counted)
    few, k, sampling = PROMPTS[:5], 7, Sampling(temperature=1.0, top_p=0.9)
    prompts, seeds = [one for one in few for _ in range(k)], list(range(5 * k))
    alone = {n: run(words, [prompts[n]], [seeds[n]], rows=1, sampling=sampling)[0] for n in (0, 6, 7, 20, 34)}
    prefilled.clear()
    found = run(words, prompts, seeds, rows=rows, sampling=sampling)
    assert sum(prefilled) == len(few)
    assert {n: (found[n].text, found[n].completion_tokens) for n in alone} == {
        n: (one.text, one.completion_tokens) for n, one in alone.items()
    }
    assert len({found[n].text for n in range(k)}) > 1


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_answer_ends_at_the_context(words):
    long = " ".join(WORDS * 5)
    done = run(words, [long], [0], new=2048)[0]
    assert done.prompt_tokens + done.completion_tokens <= CONFIG.max_positions


def test_a_prompt_beyond_the_context_is_marked_and_the_rest_goes_on(words, alone):
    found = run(words, [PROMPTS[0], " ".join(WORDS * 30), PROMPTS[1]], SEEDS[:3])
    assert (found[1].too_long, found[1].text, found[1].completion_tokens) == (True, "", 0)
    assert found[1].prompt_tokens >= CONFIG.max_positions
    assert [found[0].text, found[2].text] == [alone[0].text, alone[1].text]


def test_an_empty_prompt_and_a_tokenizer_without_an_end_are_errors(words, monkeypatch):
    monkeypatch.setattr(engine_module, "prompt_ids", lambda prompt, _, **how: [3] if prompt else [])  # as without a BOS
    with pytest.raises(UserError, match="prompt 1 is empty"):
        run(words, ["one", ""], [0, 0])
    endless = copy.deepcopy(words)
    endless.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        engine(endless)


def test_programs_are_bounded_by_the_buckets():
    assert [bucket(n) for n in (1, 32, 33, 48, 49, 64, 65, 97, 129)] == [32, 32, 48, 48, 64, 64, 96, 128, 192]
    assert all(bucket(n) >= n for n in range(1, 5000))
    assert len({bucket(n) for n in range(1, 4097)}) <= 16
