"""Batches: every example whole, once an epoch, in an order that seed alone decides, and resumable to the bit."""

import json
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.data import batches as module
from lema_jax.data import dataset
from lema_jax.data.batches import DataConfig, batches, once, steps_for
from lema_jax.data.encode import Encoded
from lema_jax.errors import UserError

SIZES = [int(n) for n in np.random.default_rng(0).integers(3, 30, size=57)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("data"), SIZES)


def made(folder: Path, sizes: list[int]) -> Path:
    """Example k is the token k + 1 repeated, with loss on all but its first token."""
    examples = [Encoded(np.full(n, k + 1, np.int32), (np.arange(n) > 0).astype(np.uint8)) for k, n in enumerate(sizes)]
    dataset.write_records(examples, folder)
    return folder


def first(folder: Path, count: int, rows: slice = slice(None), **fields: object) -> list[dict[str, np.ndarray]]:
    cfg = DataConfig(**{"path": str(folder), "batch_size": 4, "seq_len": 32, **fields})  # type: ignore[arg-type]
    iterator = iter(batches(cfg, rows))
    return [next(iterator) for _ in range(count)]


def same(left: list[dict[str, np.ndarray]], right: list[dict[str, np.ndarray]]) -> bool:
    return all(np.array_equal(a[key], b[key]) for a, b in zip(left, right, strict=True) for key in a)


def segments(batch: dict[str, np.ndarray], sizes: list[int] = SIZES) -> list[int]:
    """The examples of a batch, each checked to be whole and in its place."""
    found = []
    for row in range(len(batch["tokens"])):
        ids = batch["segment_ids"][row]
        assert set(ids) - {0} == set(range(1, ids.max() + 1))
        for segment in range(1, ids.max() + 1):
            where = np.flatnonzero(ids == segment)
            tokens = batch["tokens"][row, where]
            assert (tokens == tokens[0]).all()
            assert len(where) == sizes[tokens[0] - 1]
            assert (np.diff(where) == 1).all()
            assert (batch["positions"][row, where] == np.arange(len(where))).all()
            assert (batch["weights"][row, where] == (np.arange(len(where)) > 0)).all()
            assert (batch["records"][row, where] == tokens - 1).all()
            found.append(int(tokens[0]) - 1)
    padding = batch["segment_ids"] == 0
    assert not batch["tokens"][padding].any()
    assert not batch["weights"][padding].any()
    return found


def test_shapes_and_types(folder: Path) -> None:
    (batch,) = first(folder, 1)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "tokens": ((4, 32), np.int32),
        "weights": ((4, 32), np.float32),
        "segment_ids": ((4, 32), np.int32),
        "positions": ((4, 32), np.int32),
        "records": ((4, 32), np.int32),
    }


@pytest.mark.slow
@pytest.mark.parametrize("packing", [True, False])
def test_every_example_comes_whole_and_equally_often(folder: Path, packing: bool) -> None:
    seen = Counter(example for batch in first(folder, 400, packing=packing) for example in segments(batch))
    assert set(seen) == set(range(len(SIZES)))
    assert max(seen.values()) - min(seen.values()) <= 12  # only epochs that are in the packer together may differ


def test_unpacked_rows_hold_one_example(folder: Path) -> None:
    assert all(batch["segment_ids"].max() == 1 for batch in first(folder, 40, packing=False))


def test_packing_wastes_less_than_padding(folder: Path) -> None:
    def filled(packing: bool) -> float:
        return float(np.mean([batch["segment_ids"] > 0 for batch in first(folder, 60, packing=packing, seq_len=64)]))

    assert filled(True) > 0.9
    assert filled(True) > 3 * filled(False)


def test_seed_decides_the_order_and_epochs_differ(folder: Path) -> None:
    assert same(first(folder, 30, seed=3), first(folder, 30, seed=3))
    assert not same(first(folder, 3, seed=3), first(folder, 3, seed=4))
    order = [example for batch in first(folder, 200, packing=False) for example in segments(batch)]
    assert order[: len(SIZES)] != order[len(SIZES) : 2 * len(SIZES)]


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_one_global_batch(folder: Path, count: int) -> None:
    whole = first(folder, 50)
    parts = [first(folder, 50, slice(index * 4 // count, (index + 1) * 4 // count)) for index in range(count)]
    joined = [{key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts)]
    assert same(whole, joined)


@pytest.mark.slow
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("stop", [0, 1, 7, 33, 64])
def test_resume_goes_on_exactly_even_in_another_process_count(folder: Path, packing: bool, stop: int) -> None:
    cfg = DataConfig(path=str(folder), batch_size=4, seq_len=32, packing=packing)
    undisturbed = iter(batches(cfg))
    for _ in range(stop):
        next(undisturbed)
    state = json.loads(json.dumps(undisturbed.get_state()))
    rest = [next(undisturbed) for _ in range(40)]
    resumed = iter(batches(cfg))
    resumed.set_state(state)
    assert same(rest, [next(resumed) for _ in range(40)])
    second_half = iter(batches(cfg, slice(2, 4)))
    second_half.set_state(state)
    assert same([{key: value[2:] for key, value in batch.items()} for batch in rest], [next(second_half) for _ in rest])


def test_one_example_is_enough(tmp_path: Path) -> None:
    batch = first(made(tmp_path, [5]), 3)[-1]
    assert (batch["segment_ids"] > 0).any(axis=1).all()


def test_counts(folder: Path) -> None:
    assert dataset.counts(folder) == dataset.Counts(len(SIZES), sum(SIZES), sum(SIZES) - len(SIZES), max(SIZES))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"path": "/nowhere"}, "no data set at /nowhere"),
        ({"path": ""}, "data.path='' must name a data set"),
        ({"seq_len": 20}, f"data.seq_len=20 is shorter than .*smallest value that works is {max(SIZES)}"),
        (
            {"seq_len": 0, "batch_size": -1},
            "data.batch_size=-1 must be at least 0 .*; data.seq_len=0 must be at least 1",
        ),
        ({"seed": -1}, "data.seed=-1"),
    ],
)
def test_what_a_user_can_get_wrong(folder: Path, fields: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        first(folder, 1, **fields)


@pytest.mark.parametrize("packing", [True, False])
def test_once_is_every_example_once(folder: Path, packing: bool) -> None:
    cfg = DataConfig(str(folder), batch_size=4, seq_len=32, packing=packing)
    found = list(once(cfg))
    assert sorted(example for batch in found for example in segments(batch)) == list(range(len(SIZES)))
    assert {batch["tokens"].shape for batch in found} == {(4, 32)}
    assert same([{key: value[1:3] for key, value in batch.items()} for batch in found], list(once(cfg, slice(1, 3))))


@pytest.mark.parametrize("epochs", [1, 2.5])
def test_a_length_in_epochs_is_the_steps_that_hold_them(folder: Path, epochs: float) -> None:
    cfg = DataConfig(str(folder), batch_size=4, seq_len=32)
    steps = steps_for(cfg, epochs=epochs)
    held = [len(segments(batch)) for batch in first(folder, steps)]
    assert sum(held[:-1]) < epochs * len(SIZES) <= sum(held)
    padded = DataConfig(str(folder), batch_size=4, seq_len=32, packing=False)
    assert steps_for(padded, epochs=epochs) == -(-epochs * len(SIZES) // 4)


def test_a_length_in_epochs_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert 1.1 * 50 > 55  # in binary
    cfg = DataConfig(str(made(tmp_path, [5] * 50)), batch_size=11, seq_len=32, packing=False)
    assert steps_for(cfg, epochs=1.1) == 5


LENGTHS = st.one_of(
    st.builds(lambda epochs: {"epochs": epochs}, st.sampled_from([0.1, 0.5, 1, 1.7, 3, 10])),
    st.builds(lambda tokens: {"tokens": tokens}, st.integers(1, 3000)),
)


def counted(cfg: DataConfig, length: dict[str, float]) -> int:
    """The batches until they hold a length, one after the other."""
    goal = length["tokens"] if "tokens" in length else Fraction(str(length["epochs"])) * len(dataset.lengths(cfg.path))
    held = 0
    for steps, batch in enumerate(batches(cfg), start=1):
        ids = batch["segment_ids"]
        held += int((ids > 0).sum() if "tokens" in length else ids.max(axis=1).sum())
        if held >= goal:
            return steps
    raise AssertionError("batches end")


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 5), st.booleans(), LENGTHS)
def test_a_length_is_the_steps_that_counting_finds(sizes, batch_size, packing, length):
    with tempfile.TemporaryDirectory() as place:
        cfg = DataConfig(str(made(Path(place), sizes)), batch_size=batch_size, seq_len=32, packing=packing)
        assert steps_for(cfg, **length) == counted(cfg, length)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 60), st.integers(1, 5), st.booleans(), LENGTHS)
def test_of_equal_examples_a_few_tell_the_steps_of_all(size, count, looked_at, batch_size, packing, length):
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_COUNTED", looked_at)
        cfg = DataConfig(str(made(Path(place), [size] * count)), batch_size=batch_size, seq_len=32, packing=packing)
        assert steps_for(cfg, **length) == counted(cfg, length)


def test_a_length_in_tokens_is_the_steps_that_hold_them(folder: Path) -> None:
    steps = steps_for(DataConfig(str(folder), batch_size=4, seq_len=32), tokens=1000)
    held = [int((batch["segment_ids"] > 0).sum()) for batch in first(folder, steps)]
    assert sum(held[:-1]) < 1000 <= sum(held)


def test_an_empty_data_set_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "lengths.npy", np.zeros((0, 2), np.int32))
    with pytest.raises(UserError, match="has no examples"):
        first(tmp_path, 1)


def test_a_lost_shard_says_so(tmp_path: Path) -> None:
    made(tmp_path, [5, 6])
    next(tmp_path.glob("*.array_record*")).unlink()
    with pytest.raises(UserError, match=r"record \d cannot be read"):
        first(tmp_path, 1)


def test_a_damaged_shard_says_so(tmp_path: Path) -> None:
    shard = next(made(tmp_path, [500] * 40).glob("*.array_record*"))
    content = bytearray(shard.read_bytes())
    content[200:2000] = bytes(1800)
    shard.write_bytes(content)
    with pytest.raises(UserError, match="build it again"):
        first(tmp_path, 40, seq_len=512)
