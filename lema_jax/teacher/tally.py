"""Statistics of a teacher's replies: how many were kept, for how many attempts, and why the others were rejected."""

import collections
from collections.abc import Collection

from lema_jax import faults
from lema_jax.records import Correction, Critique
from lema_jax.teacher import keep


class Tally:
    """Counts corrections or critiques, those that were kept and those that were rejected.

    Attributes:
      rows: replies counted.
      kept: of these, the ones that pass every keep rule.
      mistakes: ids of the attempts that they are about.
      corrected: of these, the ones with a reply that was kept.
      rejected: replies by their fault.
    """

    def __init__(self, of: str = "corrections", about: str = "mistakes", rules: Collection[str] = keep.RULES) -> None:
        self._words, self._rules = (of, about), rules
        self.rows = self.kept = 0
        self.mistakes: set[str] = set()
        self.corrected: set[str] = set()
        self.rejected: collections.Counter[str] = collections.Counter()

    def add(self, row: Correction | Critique) -> None:
        """Counts a reply."""
        self.rows += 1
        self.mistakes.add(row.attempt.id)
        if row.rejected:
            self.rejected[row.rejected] += 1
        else:
            self.kept += 1
            self.corrected.add(row.attempt.id)

    def __str__(self) -> str:
        of, about = self._words
        lines = [
            f"{self.kept:,} of {self.rows:,} {of} kept, for {len(self.corrected):,} of {len(self.mistakes):,} {about}"
        ]
        for fault in (*sorted(self.rejected.keys() - set(self._rules)), *self._rules):
            count = self.rejected[fault]
            meaning = f" ({faults.FAULTS[fault].rstrip('.')})" if count and fault in faults.FAULTS else ""
            lines.append(f"  {count:7,} rejected: {fault}{meaning}")
        return "\n".join(lines)
