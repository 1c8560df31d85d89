"""From a data set to an infinite stream of batches: epoch after epoch, packed, exactly resumable (grain).

Every process plans the global batches from the lengths of the examples, then reads only the records of its own rows. So
the batches do not depend on the number of processes, and all processes have the same small iterator state: a checkpoint
resumes on another number of processes.
"""

import dataclasses
import fractions
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from lema_jax import ranges
from lema_jax.data import dataset, packing
from lema_jax.errors import UserError

MOST_STEPS = 10**9  # of a run
ORDERS = ("shuffled", "stored")
_COUNTED = 200_000  # examples: some minutes of planning
_FITTED = 5_000_000  # examples: up to 20 seconds of planning, which here needs their lengths alone
_BINS = 128  # rows packed at a time; more bins pad less, and mix epochs more


@dataclasses.dataclass
class DataConfig:
    """Which examples a run reads, and how they are batched."""

    path: str = ""  # a data set of lema_jax.build_data
    # B, rows of the global batch of an optimizer step; 96 in the paper; 0: as few as hold every `examples_per_step`
    batch_size: int = ranges.within(96, 0, 2**20)
    seq_len: int = ranges.within(1024, 1, 2**24)  # T, tokens of a row; the longest example must fit
    packing: bool = (
        True  # several examples per row, with separate attention; False: one padded example per row, as the authors
    )
    seed: int = ranges.within(0, 0, 2**32 - 1)  # of the shuffling
    examples_per_step: int = ranges.within(0, 0, 2**20)  # of every step, packed into its rows; 0: as many as fit
    order: str = "shuffled"  # a new permutation every epoch; "stored": the order of the data set, every epoch

    def problems(self) -> list[str]:
        """Each violated rule, as `field=value rule; remedy`."""
        found = []
        if not self.path:
            found.append("path='' must name a data set; make one with lema_jax.build_data")
        if self.examples_per_step and not self.packing:
            found.append(
                f"examples_per_step={self.examples_per_step} packs several examples into a row, and packing=False does "
                "not; leave one of the two out"
            )
        if not self.batch_size and not self.examples_per_step:
            found.append("batch_size=0 is as few rows as hold examples_per_step; set one of the two")
        if self.order not in ORDERS:
            found.append(f"order={self.order!r} must be one of {', '.join(ORDERS)}")
        elif self.order == "stored" and self.packing and not self.examples_per_step:
            found.append(
                f"order='stored' is not kept by packing as many examples as fit, {_BINS} rows at a time; set "
                "examples_per_step, or packing=False"
            )
        return found + ranges.problems(self)


def batches(cfg: DataConfig, rows: slice | np.ndarray = slice(None)) -> grain.IterDataset:
    """An infinite stream of the rows `rows` (a slice, or numbers) of each global batch; its iterators save their state.

    Each element is a dict of [B, T] arrays: `tokens` int32, `weights` float32 (1 where there is loss), `segment_ids`
    int32 (1, 2, … for the examples of a row, 0 on padding), `positions` int32 (from 0 in each segment), and `records`
    int32 (the number of each token's example in the data set). Targets are not shifted: the loss shifts them. A pair is
    two segments of one row: the chosen sequence has an odd number, the rejected one the next.

    Raises:
      UserError: the data set is missing, empty or damaged, or an example is longer than a row.
    """
    plans, records = _endless(cfg), dataset.Records(cfg.path)
    return plans.map(lambda plan: _fill({name: array[rows] for name, array in plan.items()}, records))


def once(cfg: DataConfig, rows: slice = slice(None)) -> Iterator[dict[str, np.ndarray]]:
    """As `batches`, but each example once, as many to a batch as fit; empty rows complete the last one."""
    lengths = checked_lengths(cfg)
    records = dataset.Records(cfg.path)
    for plan in _pack(cfg, lengths, range(len(lengths))).batch(cfg.batch_size):
        missing = cfg.batch_size - len(plan["record"])
        padded = {name: np.pad(array, [(0, missing), (0, 0)]) for name, array in plan.items()}
        yield _fill({name: array[rows] for name, array in padded.items()}, records)


def packer(cfg: DataConfig) -> dict[str, Any]:
    """What the place of a row within a pack depends on; empty where steps have a number of examples."""
    return {} if _per_step(cfg) else {"seq_len": cfg.seq_len, "packing": cfg.packing, "bins": _bins(cfg)}


def steps_for(cfg: DataConfig, *, epochs: float = math.inf, tokens: float = math.inf) -> int:
    """The number of batches for `epochs` passes over the data set, or for `tokens` tokens (padding excluded).

    Exact where every batch has the same number of examples. Otherwise it counts the first `_COUNTED` examples, and
    extrapolates their packing to the rest.

    Raises:
      UserError: more than `MOST_STEPS`; see `batches`.
    """
    lengths = checked_lengths(cfg)
    if _per_step(cfg):
        steps = math.ceil(_wanted(cfg, lengths, epochs, tokens) / _per_step(cfg))
    else:
        steps = _counted(cfg, _exact(epochs) * len(lengths), _exact(tokens))
    if steps > MOST_STEPS:
        raise UserError(f"{epochs:g} epochs or {tokens:g} tokens are {steps:,} steps, above {MOST_STEPS:,}; take fewer")
    return steps


@dataclasses.dataclass(frozen=True)
class Fit:
    """The rows that the fullest of the first `steps` steps needs."""

    rows: int
    steps: int


def fit(cfg: DataConfig, steps: int) -> Fit:
    """Packs the steps of a run with `examples_per_step`, up to `_FITTED` examples; see `batches` for errors."""
    lengths = checked_lengths(cfg)
    steps = min(steps, max(1, _FITTED // cfg.examples_per_step))
    numbers = _numbers(cfg, lengths)
    rows = 0
    for step in range(steps):
        records = [numbers[index] for index in range(step * cfg.examples_per_step, (step + 1) * cfg.examples_per_step)]
        rows = max(rows, int(packing.best_fit(lengths[records], cfg.seq_len).max()) + 1)
    return Fit(rows, steps)


def _per_step(cfg: DataConfig) -> int:
    """The examples of every batch; 0 where the packing decides.

    That is so of shuffled rows of one example too: they have always gone through the packer, and runs resume in it.
    """
    return cfg.examples_per_step or (cfg.batch_size if cfg.order == "stored" else 0)


def _exact(length: float) -> fractions.Fraction | float:
    """1.1 as it was written, not as binary rounds it."""
    return fractions.Fraction(str(length)) if math.isfinite(length) else length


def _wanted(cfg: DataConfig, lengths: np.ndarray, epochs: float, tokens: float) -> fractions.Fraction | float:
    """The examples that hold `epochs` or `tokens`, whichever come first."""
    count = len(lengths)
    found = [_exact(epochs) * count]
    if math.isfinite(tokens):
        epoch, rest = divmod(int(tokens) - 1, int(lengths.sum(dtype=np.int64)))
        numbers = _numbers(cfg, lengths)
        held = np.cumsum(lengths[[numbers[epoch * count + place] for place in range(count)]], dtype=np.int64)
        found.append(fractions.Fraction(epoch * count + int(np.searchsorted(held, rest + 1)) + 1))
    return min(found)


def _counted(cfg: DataConfig, wanted: fractions.Fraction | float, tokens: fractions.Fraction | float) -> int:
    """The batches that hold `wanted` examples or `tokens`, whichever come first."""
    plans, steps, examples, packed = iter(_endless(cfg)), 0, 0, 0
    while examples < min(wanted, _COUNTED) and packed < tokens:
        segments = next(plans)["record_segment_ids"]
        examples += int(segments.max(axis=1).sum())
        packed += int((segments > 0).sum())
        steps += 1
    if examples < wanted and packed < tokens:
        return math.ceil(min(steps * wanted / examples, steps * tokens / packed))  # exact where the result is whole
    return steps


def _endless(cfg: DataConfig) -> grain.IterDataset:
    """Plans of batches: [B, T] record numbers, segments and positions."""
    lengths = checked_lengths(cfg)
    numbers = _numbers(cfg, lengths)
    if not _per_step(cfg):
        return _pack(cfg, lengths, numbers).batch(cfg.batch_size)
    return _stream(grain.MapDataset.source(numbers)).batch(_per_step(cfg)).map(lambda step: _step(cfg, lengths, step))


def _step(cfg: DataConfig, lengths: np.ndarray, records: np.ndarray) -> dict[str, np.ndarray]:
    """The plan of a step with these records, packed or one to a row."""
    tokens = lengths[records]
    rows = packing.best_fit(tokens, cfg.seq_len) if cfg.packing else np.arange(len(records))
    if (needed := int(rows.max()) + 1) > cfg.batch_size:
        raise UserError(
            f"a step of {len(records)} examples of {cfg.path} needs {needed} rows of data.seq_len={cfg.seq_len}; go on "
            f"from the last checkpoint with data.batch_size={needed} or more, and --allow_config_change"
        )
    return packing.plan(records, tokens, rows, (cfg.batch_size, cfg.seq_len))


def _numbers(cfg: DataConfig, lengths: np.ndarray) -> "_Epochs":
    return _Epochs(len(lengths), cfg.seed if cfg.order == "shuffled" else None)


def checked_lengths(cfg: DataConfig) -> np.ndarray:
    """[N] int32: the tokens of each example of the data set.

    Raises:
      UserError: a configuration that contradicts itself, no data set, or an example that is longer than a row.
    """
    if found := cfg.problems():
        raise UserError("; ".join(f"data.{problem}" for problem in found))
    lengths = dataset.lengths(cfg.path)[:, 0]
    if (longest := int(lengths.max())) > cfg.seq_len:
        raise UserError(
            f"data.seq_len={cfg.seq_len} is shorter than the longest example of {cfg.path}; "
            f"the smallest value that works is {longest}"
        )
    return lengths


def _pack(cfg: DataConfig, lengths: np.ndarray, order: Sequence[int]) -> grain.IterDataset:
    spans = grain.MapDataset.source(order).map(lambda record: {"record": np.full(lengths[record], record, np.int32)})
    return grain.experimental.FirstFitPackIterDataset(
        _stream(spans),
        length_struct={"record": cfg.seq_len},
        num_packing_bins=_bins(cfg),
        max_sequences_per_bin=None if cfg.packing else 1,
        seed=cfg.seed,
    )


def _bins(cfg: DataConfig) -> int:
    """Rows packed at a time."""
    return max(_BINS, cfg.batch_size)


def _stream(elements: grain.MapDataset) -> grain.IterDataset:
    """The elements one after the other, read in the process's own thread: planning is too cheap for others."""
    return elements.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))


class _Epochs(Sequence[int]):
    """An infinite sequence of record numbers, with a new permutation every epoch; none where `seed` is None.

    Not grain's shuffle, which takes milliseconds per number if there are few records.
    """

    def __init__(self, records: int, seed: int | None):
        self._records = records
        self._seed = seed
        self._epoch = -1

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: Any) -> Any:
        epoch, place = divmod(index, self._records)
        if self._seed is None:
            return place
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._records)
        return int(self._order[place])


def _fill(plan: dict[str, np.ndarray], records: dataset.Records) -> dict[str, np.ndarray]:
    """Copies the records named by a plan ([B, T] record numbers, segments and positions) into batch arrays."""
    segment_ids, positions = plan["record_segment_ids"], plan["record_positions"]
    tokens = np.zeros(segment_ids.shape, np.int32)
    weights = np.zeros(segment_ids.shape, np.float32)
    for row, start in np.argwhere((segment_ids > 0) & (positions == 0)):
        record = records[int(plan["record"][row, start])]
        span = slice(start, start + len(record["tokens"]))
        tokens[row, span] = record["tokens"]
        weights[row, span] = record["weights"]
    if records.chosen is not None:
        chosen = records.chosen[plan["record"]]
        rejected = (positions >= chosen) & (segment_ids > 0)
        segment_ids = np.where(segment_ids > 0, 2 * segment_ids - 1 + rejected, 0).astype(np.int32)
        positions = positions - np.where(rejected, chosen, 0).astype(np.int32)
    layout = {"segment_ids": segment_ids, "positions": positions, "records": plan["record"]}
    return {"tokens": tokens, "weights": weights} | layout
