"""From a data set to batches: shuffled anew each epoch, packed, without end, and resumable to the bit (grain).

The stream is planned on lengths alone, for the whole job, and each process then reads only the records of its own
rows. So the global batches do not depend on the number of processes, and every process holds the same small iterator
state: a checkpoint may be resumed by another number of processes.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from lema_jax import ranges
from lema_jax.data import dataset
from lema_jax.errors import UserError

MOST_STEPS = 10**9  # of a run
_COUNTED = 200_000  # examples, planned in some minutes
_BINS = 128  # rows filled at a time; more leave less padding, and mix more of one epoch into the next


@dataclasses.dataclass
class DataConfig:
    """Which examples a run reads, and how they are laid into batches."""

    path: str = ""  # a folder made by lema_jax.build_data
    batch_size: int = ranges.within(96, 1, 2**20)  # B, rows of the global batch of an optimizer step; 96 in the paper
    seq_len: int = ranges.within(1024, 1, 2**24)  # T, tokens of a row; the longest example must fit
    packing: bool = True  # several examples to a row, attention kept apart; False pads one to a row (the authors' way)
    seed: int = ranges.within(0, 0, 2**32 - 1)  # of the shuffling

    def problems(self) -> list[str]:
        """Every rule that the fields break, as `field=value rule; remedy`."""
        found = []
        if not self.path:
            found.append("path='' must name a data set; make one with lema_jax.build_data")
        return found + ranges.problems(self)


def batches(cfg: DataConfig, rows: slice = slice(None)) -> grain.IterDataset:
    """The rows `rows` of each global batch, for ever; grain iterators save and restore their place.

    Each element is a dict of [rows, T] arrays: `tokens` int32, `weights` float32 (1 where there is loss), `segment_ids`
    int32 (1, 2, … for the examples of a row, 0 on padding), `positions` int32 (from 0 in each segment), and `records`
    int32 (which example of the data set each token is of). Nothing is shifted: the loss does that.

    Raises:
      UserError: a data set that is missing, empty or damaged, or an example longer than a row.
    """
    plans, records = _endless(cfg), dataset.Records(cfg.path)
    return plans.map(lambda plan: _fill({name: array[rows] for name, array in plan.items()}, records))


def once(cfg: DataConfig, rows: slice = slice(None)) -> Iterator[dict[str, np.ndarray]]:
    """As `batches`, each example once and in order; the last batch is filled up with empty rows."""
    lengths = _lengths(cfg)
    records = dataset.Records(cfg.path)
    for plan in _pack(cfg, lengths, range(len(lengths))).batch(cfg.batch_size):
        short = cfg.batch_size - len(plan["record"])
        whole = {name: np.pad(array, [(0, short), (0, 0)]) for name, array in plan.items()}
        yield _fill({name: array[rows] for name, array in whole.items()}, records)


def steps_for(cfg: DataConfig, *, epochs: float = math.inf, tokens: float = math.inf) -> int:
    """How many batches hold `epochs` times as many examples as there are, or `tokens` tokens (padding apart).

    Counted for the first `_COUNTED` examples; those behind are taken to lie as close.

    Raises:
      UserError: more than `MOST_STEPS`; what `batches` raises.
    """
    wanted = epochs * len(_lengths(cfg))
    plans, steps, examples, held = iter(_endless(cfg)), 0, 0, 0
    while examples < min(wanted, _COUNTED) and held < tokens:
        segments = next(plans)["record_segment_ids"]
        examples += int(segments.max(axis=1).sum())
        held += int((segments > 0).sum())
        steps += 1
    if examples < wanted and held < tokens:
        steps = math.ceil(min(steps * wanted / examples, steps * tokens / held))  # exact where the result is whole
    if steps > MOST_STEPS:
        raise UserError(f"{epochs:g} epochs or {tokens:g} tokens are {steps:,} steps, above {MOST_STEPS:,}; take fewer")
    return steps


def _endless(cfg: DataConfig) -> grain.IterDataset:
    """Plans of batches: [B, T] record numbers, segments and positions."""
    lengths = _lengths(cfg)
    return _pack(cfg, lengths, _Epochs(len(lengths), cfg.seed)).batch(cfg.batch_size)


def _lengths(cfg: DataConfig) -> np.ndarray:
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
        spans.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)),
        length_struct={"record": cfg.seq_len},
        num_packing_bins=max(_BINS, cfg.batch_size),
        max_sequences_per_bin=None if cfg.packing else 1,
        seed=cfg.seed,
    )


class _Epochs(Sequence[int]):
    """Record numbers for ever, every epoch in an order of its own.

    Not grain's shuffle: it computes each number alone, which takes it milliseconds where there are few records.
    """

    def __init__(self, records: int, seed: int):
        self._records = records
        self._seed = seed
        self._epoch = -1

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: Any) -> Any:
        epoch, place = divmod(index, self._records)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._records)
        return int(self._order[place])


def _fill(plan: dict[str, np.ndarray], records: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Reads the records that a plan ([B, T] of record numbers, segments and positions) names into their places."""
    segment_ids, positions = plan["record_segment_ids"], plan["record_positions"]
    tokens = np.zeros(segment_ids.shape, np.int32)
    weights = np.zeros(segment_ids.shape, np.float32)
    for row, start in np.argwhere((segment_ids > 0) & (positions == 0)):
        record = records[int(plan["record"][row, start])]
        span = slice(start, start + len(record["tokens"]))
        tokens[row, span] = record["tokens"]
        weights[row, span] = record["weights"]
    places = {"segment_ids": segment_ids, "positions": positions, "records": plan["record"]}
    return {"tokens": tokens, "weights": weights} | places
