"""Statistics of corrections: how many were kept, for how many mistakes, and why the others were rejected."""

import collections

from lema_jax import records
from lema_jax.records import Correction
from lema_jax.teacher import keep


class Tally:
    """Counts corrections, those that were kept and those that were rejected.

    Attributes:
      rows: corrections counted.
      kept: of these, the ones that pass every keep rule.
      mistakes: ids of the attempts that they correct.
      corrected: of these, the ones with a correction that was kept.
      rejected: corrections by their fault.
    """

    def __init__(self) -> None:
        self.rows = self.kept = 0
        self.mistakes: set[str] = set()
        self.corrected: set[str] = set()
        self.rejected: collections.Counter[str] = collections.Counter()

    def add(self, row: Correction) -> None:
        """Counts a correction."""
        self.rows += 1
        self.mistakes.add(row.attempt.id)
        if row.rejected:
            self.rejected[row.rejected] += 1
        else:
            self.kept += 1
            self.corrected.add(row.attempt.id)

    def __str__(self) -> str:
        lines = [
            f"{self.kept:,} of {self.rows:,} corrections kept,"
            f" for {len(self.corrected):,} of {len(self.mistakes):,} mistakes"
        ]
        for fault in (*sorted(self.rejected.keys() - keep.RULES.keys()), *keep.RULES):
            count = self.rejected[fault]
            meaning = f" ({records.FAULTS[fault].rstrip('.')})" if count and fault in records.FAULTS else ""
            lines.append(f"  {count:7,} rejected: {fault}{meaning}")
        return "\n".join(lines)
