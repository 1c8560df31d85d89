"""Steps of as many examples as are asked for, in the order that is asked for, packed into rows: exact and resumable."""

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
from lema_jax.data.batches import DataConfig, batches, fit, once, steps_for
from lema_jax.data.packing import best_fit
from lema_jax.errors import UserError
from tests.data.test_batches import SIZES, folder, made, same, segments

__all__ = ["folder"]  # fixture

WIDTH = 32
LENGTHS = st.lists(st.integers(1, WIDTH - 2), min_size=1, max_size=30)
ORDERS = st.sampled_from(["shuffled", "stored"])


def config(path: Path, per_step: int, steps: int, order: str = "shuffled", seed: int = 0, spare: int = 0) -> DataConfig:
    """As many rows as the fullest of `steps` steps needs, in fours, and `spare` fours more."""
    cfg = DataConfig(str(path), 1, WIDTH, seed=seed, examples_per_step=per_step, order=order)
    cfg.batch_size = -(-fit(cfg, steps).rows // 4) * 4 + 4 * spare
    return cfg


def taken(cfg: DataConfig, steps: int, rows: slice = slice(None)) -> list[dict[str, np.ndarray]]:
    iterator = iter(batches(cfg, rows))
    return [next(iterator) for _ in range(steps)]


@given(st.lists(st.integers(1, WIDTH), min_size=1, max_size=60))
def test_rows_hold_whole_examples_and_no_two_rows_would_be_one(lengths):
    rows = best_fit(np.array(lengths, np.int32), WIDTH)
    filled = np.bincount(rows, weights=lengths)
    assert filled.min() > 0
    assert filled.max() <= WIDTH
    if len(filled) > 1:
        assert sum(sorted(filled)[:2]) > WIDTH
    assert (best_fit(np.array(lengths, np.int32), WIDTH) == rows).all()


@given(st.lists(st.integers(1, WIDTH - 1), min_size=1, max_size=20), st.randoms())
def test_examples_that_fill_rows_in_pairs_are_paired(halves, random):
    lengths = [part for half in halves for part in (half, WIDTH - half)]
    random.shuffle(lengths)
    assert best_fit(np.array(lengths), WIDTH).max() + 1 == len(halves)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(1, 45), ORDERS, st.integers(0, 3), st.integers(0, 1))
def test_a_step_has_its_examples_and_an_epoch_each_of_them_once(sizes, per_step, order, seed, spare):
    with tempfile.TemporaryDirectory() as place:
        steps = 3 * len(sizes) // per_step + 2
        cfg = config(made(Path(place), sizes), per_step, steps, order, seed, spare)
        seen: Counter[int] = Counter()
        for step, batch in enumerate(taken(cfg, steps)):
            found = segments(batch, sizes)
            assert len(found) == per_step
            if order == "stored":
                assert sorted(found) == sorted(
                    number % len(sizes) for number in range(step * per_step, seen.total() + per_step)
                )
            seen.update(found)
            epochs, begun = divmod(seen.total(), len(sizes))
            assert (
                sorted(seen[number] for number in range(len(sizes)))
                == [epochs] * (len(sizes) - begun) + [epochs + 1] * begun
            )


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.integers(1, 20), ORDERS, st.integers(0, 12), st.sampled_from([1, 2, 4]))
def test_a_saved_place_goes_on_exactly_on_any_number_of_processes(sizes, per_step, order, stop, processes):
    with tempfile.TemporaryDirectory() as place:
        cfg = config(made(Path(place), sizes), per_step, stop + 6, order)
        undisturbed = iter(batches(cfg))
        for _ in range(stop):
            next(undisturbed)
        state = json.loads(json.dumps(undisturbed.get_state()))
        rest = [next(undisturbed) for _ in range(6)]
        share = cfg.batch_size // processes
        parts = []
        for process in range(processes):
            resumed = iter(batches(cfg, slice(process * share, (process + 1) * share)))
            resumed.set_state(state)
            parts.append([next(resumed) for _ in range(6)])
        assert same(
            rest, [{name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts)]
        )


def test_seed_decides_the_order_and_epochs_differ(folder: Path) -> None:
    cfg = config(folder, len(SIZES), 40)
    first, second, other = taken(cfg, 2) + taken(config(folder, len(SIZES), 40, seed=1), 1)
    assert sorted(segments(first)) == sorted(segments(second)) == sorted(segments(other))
    order = [[segments(batch) for batch in taken(config(folder, 5, 40, seed=seed), 11)] for seed in (0, 1)]
    assert order[0] != order[1]
    assert not same([first], [second])
    assert not same([first], [other])


def test_stored_rows_of_one_example_are_the_data_set(folder: Path) -> None:
    cfg = DataConfig(str(folder), 4, WIDTH, packing=False, order="stored")
    found = [example for batch in taken(cfg, 40) for example in segments(batch)]
    assert found == [number % len(SIZES) for number in range(160)]
    assert sorted(example for batch in once(cfg) for example in segments(batch)) == list(range(len(SIZES)))


def test_once_takes_as_many_as_fit(folder: Path) -> None:
    free, cfg = (
        DataConfig(str(folder), 4, WIDTH),
        DataConfig(str(folder), 4, WIDTH, examples_per_step=1, order="stored"),
    )
    assert same(list(once(free)), list(once(cfg)))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    LENGTHS,
    st.integers(1, 45),
    ORDERS,
    st.booleans(),
    st.one_of(
        st.fixed_dictionaries({"epochs": st.sampled_from([0.1, 0.7, 1, 1.1, 2.3, 4])}),
        st.fixed_dictionaries({"tokens": st.integers(1, 1500)}),
    ),
)
def test_a_length_is_the_steps_that_counting_finds(sizes, per_step, order, packed, length):
    with tempfile.TemporaryDirectory() as place:
        path = made(Path(place), sizes)
        cfg = config(path, per_step, 1, order)
        if not packed:
            cfg = DataConfig(str(path), per_step, WIDTH, packing=False, order="stored")
        steps = steps_for(cfg, **length)
        if packed:
            cfg.batch_size = fit(cfg, steps).rows
        held = [(int((b["segment_ids"] > 0).sum()), int(b["segment_ids"].max(axis=1).sum())) for b in taken(cfg, steps)]
        held = np.cumsum(held, axis=0)[:, 0 if "tokens" in length else 1].tolist()
        goal = length.get("tokens") or Fraction(str(length["epochs"])) * len(sizes)
        assert [0, *held][-2] < goal <= held[-1]


def test_a_length_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert 1.1 * 50 > 55  # in binary
    cfg = DataConfig(str(made(tmp_path, [5] * 50)), 99, WIDTH, examples_per_step=11)
    assert steps_for(cfg, epochs=1.1) == 5


def test_a_far_length_is_not_counted(folder: Path) -> None:
    cfg = DataConfig(str(folder), 99, WIDTH, examples_per_step=11)
    assert steps_for(cfg, tokens=11 * 10**6 * sum(SIZES)) == 10**6 * len(SIZES)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.integers(1, 20), ORDERS)
def test_the_rows_that_fit_are_the_fewest_that_do(sizes, per_step, order):
    with tempfile.TemporaryDirectory() as place:
        cfg = DataConfig(str(made(Path(place), sizes)), 1, WIDTH, examples_per_step=per_step, order=order)
        found = fit(cfg, 12)
        assert found.steps == 12
        cfg.batch_size = found.rows
        taken(cfg, 12)
        if found.rows > 1:
            cfg.batch_size -= 1
            with pytest.raises(UserError, match=f"a step of {per_step} examples .* needs {found.rows} rows"):
                taken(cfg, 12)


def test_of_a_long_run_the_first_steps_are_packed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FITTED", 100)
    cfg = DataConfig(str(folder), 1, WIDTH, examples_per_step=8)
    assert fit(cfg, 10**9) == fit(cfg, 12)
    assert fit(cfg, 10**9).steps == 12


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"examples_per_step": 5, "packing": False},
            r"data.examples_per_step=5 packs .* packing=False does not; leave",
        ),
        ({"order": "stored"}, "data.order='stored' is not kept .*; set examples_per_step, or packing=False"),
        ({"order": "sorted"}, "data.order='sorted' must be one of shuffled, stored"),
        ({"order": 3}, "data.order=3 must be a text"),
        ({"examples_per_step": -1}, "data.examples_per_step=-1 must be at least 0"),
        ({"examples_per_step": 5, "seq_len": 20}, f"smallest value that works is {max(SIZES)}"),
    ],
)
def test_what_a_user_can_get_wrong(folder: Path, fields: dict[str, object], expected: str) -> None:
    cfg = DataConfig(**{"path": str(folder), "batch_size": 4, "seq_len": WIDTH, **fields})  # type: ignore[arg-type]
    for use in (lambda: taken(cfg, 1), lambda: steps_for(cfg, epochs=1), lambda: list(once(cfg))):
        with pytest.raises(UserError, match=expected):
            use()
