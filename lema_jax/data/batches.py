"""From a data set to batches: shuffled anew each epoch, packed, without end, and resumable to the bit (grain).

The stream is planned on lengths alone, for the whole job, and each process then reads only the records of its own
rows. So the global batches do not depend on the number of processes, and every process holds the same small iterator
state: a checkpoint may be resumed by another number of processes.
"""

import dataclasses
import sys
from collections.abc import Sequence

import grain
import numpy as np

from lema_jax.data import dataset
from lema_jax.errors import UserError

_BINS = 128  # rows filled at a time; more leave less padding, and mix more of one epoch into the next


@dataclasses.dataclass
class DataConfig:
    """Which examples a run reads, and how they are laid into batches."""

    path: str = ""  # a folder made by lema_jax.build_data
    batch_size: int = 96  # B, rows of the global batch that one optimizer step sees; 96 in the paper
    seq_len: int = 1024  # T, tokens of a row; the longest example must fit
    packing: bool = True  # several examples to a row, attention kept apart; False pads one to a row (the authors' way)
    seed: int = 0  # of the shuffling

    def problems(self) -> list[str]:
        """Every rule that the fields break, as `field=value rule; remedy`."""
        found = []
        if not self.path:
            found.append("path='' must name a data set; make one with lema_jax.build_data")
        found += [
            f"{name}={getattr(self, name)} must be positive"
            for name in ("batch_size", "seq_len")
            if getattr(self, name) <= 0
        ]
        if not 0 <= self.seed < 2**32:
            found.append(f"seed={self.seed} must be in [0, 2^32)")
        return found


def batches(cfg: DataConfig, process_index: int = 0, process_count: int = 1) -> grain.IterDataset:
    """This process's rows of each global batch, for ever; grain iterators save and restore their place.

    Each element is a dict of [B / process_count, T] arrays: `tokens` int32, `weights` float32 (1 where there is loss),
    `segment_ids` int32 (1, 2, … for the examples of a row, 0 on padding), `positions` int32 (from 0 in each segment).
    Nothing is shifted: the loss does that.

    Raises:
      UserError: a data set that is missing, empty or damaged, an example longer than a row, or a batch size that the
        processes do not divide.
    """
    if found := cfg.problems():
        raise UserError("; ".join(f"data.{problem}" for problem in found))
    if cfg.batch_size % process_count:
        near = [n for n in (cfg.batch_size // process_count * process_count,) if n] + [
            -(-cfg.batch_size // process_count) * process_count
        ]
        raise UserError(
            f"data.batch_size={cfg.batch_size} must divide by the {process_count} processes; "
            f"try {' or '.join(map(str, near))}"
        )
    lengths = dataset.lengths(cfg.path)[:, 0]
    if (longest := int(lengths.max())) > cfg.seq_len:
        raise UserError(
            f"data.seq_len={cfg.seq_len} is shorter than the longest example of {cfg.path}; "
            f"the smallest value that works is {longest}"
        )
    rows = cfg.batch_size // process_count
    mine = slice(process_index * rows, (process_index + 1) * rows)
    order = grain.MapDataset.source(_Epochs(len(lengths), cfg.seed))
    spans = order.map(lambda record: {"record": np.full(lengths[record], record, np.int32)})
    packed = grain.experimental.FirstFitPackIterDataset(
        spans.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)),
        length_struct={"record": cfg.seq_len},
        num_packing_bins=max(_BINS, cfg.batch_size),
        max_sequences_per_bin=None if cfg.packing else 1,
        seed=cfg.seed,
    )
    records = dataset.Records(cfg.path)
    return packed.batch(cfg.batch_size).map(lambda plan: _fill({k: v[mine] for k, v in plan.items()}, records))


class _Epochs:
    """Record numbers for ever, every epoch in an order of its own.

    Not grain's shuffle: it computes each number alone, which takes it milliseconds where there are few records.
    """

    def __init__(self, records: int, seed: int):
        self._records = records
        self._seed = seed
        self._epoch = -1

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> int:
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
    return {"tokens": tokens, "weights": weights, "segment_ids": segment_ids, "positions": positions}
