"""Packs the examples of one optimizer step into rows: longest first, each into the fullest row that has room."""

import bisect

import numpy as np


def best_fit(lengths: np.ndarray, seq_len: int) -> np.ndarray:
    """The row of each example, by best-fit decreasing: deterministic, rows numbered from 0 without gaps.

    Of many rows it opens at most 11/9 of the fewest possible (Johnson et al., SIAM J. Comput. 3, 1974).

    Args:
      lengths: [N], tokens of each example, at most `seq_len`.
    """
    rows = np.zeros(len(lengths), np.int32)
    free: list[tuple[int, int]] = []  # (tokens left, row) of the rows that are not full, sorted
    opened = 0
    tokens = lengths.tolist()
    for example in np.argsort(-lengths, kind="stable").tolist():
        length = tokens[example]
        at = bisect.bisect_left(free, (length, 0))
        if at < len(free):
            left, row = free.pop(at)
        else:
            left, row = seq_len, opened
            opened += 1
        rows[example] = row
        if left > length:
            bisect.insort(free, (left - length, row))
    return rows


def plan(records: np.ndarray, lengths: np.ndarray, rows: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """The layout of a batch, [B, T] int32 each, with the names of grain's packers; 0 where there is padding.

    Args:
      records: [N], the examples' numbers in the data set; their order is the order within a row.
      lengths: [N], their tokens.
      rows: [N], the row of each.
      shape: (B, T).
    """
    names = ("record", "record_segment_ids", "record_positions")
    record, segment_ids, positions = (np.zeros(shape, np.int32) for _ in names)
    filled, segments = np.zeros((2, shape[0]), np.int64)
    for number, length, row in zip(records.tolist(), lengths.tolist(), rows.tolist(), strict=True):
        start = int(filled[row])
        filled[row] += length
        segments[row] += 1
        span = slice(start, start + length)
        record[row, span] = number
        segment_ids[row, span] = segments[row]
        positions[row, span] = np.arange(length)
    return dict(zip(names, (record, segment_ids, positions), strict=True))
