"""The mistakes in a file of attempts: the wrong ones, or those of them that a limit leaves."""

import collections
import dataclasses
import functools
import heapq
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from lema_jax import records
from lema_jax.data import curate
from lema_jax.records import Attempt, Problem, Verdict
from lema_jax.tasks import last_number, prompts


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """The wrong attempts of a file, in its order. The file is read again each time: it may be larger than memory.

    Attributes:
      attempts: file of attempts that `sample` made.
      limit: the most mistakes; None for all.
      seed: of the random draw that `limit` leaves; None for the first ones. A larger limit draws these and more.
      read_last_number: grade an attempt that states no answer by the only number of its last sentence.
    """

    attempts: str | Path
    limit: int | None = None
    seed: int | None = None
    read_last_number: bool = False

    def __iter__(self) -> Iterator[Attempt]:
        return (row for row in self._wrong() if self._chosen is None or row.id in self._chosen)

    def survey(self) -> "Survey":
        """Reads all attempts of the file and counts their verdicts.

        Raises:
          UserError: the file cannot be read, or is damaged.
        """
        verdicts: collections.Counter[Verdict] = collections.Counter()
        families: dict[str, Problem] = {}
        for attempt in self._graded():
            verdicts[attempt.verdict] += 1
            if attempt.verdict is Verdict.WRONG:
                families.setdefault(prompts.family(attempt.problem), attempt.problem)
        return Survey(verdicts, families)

    @functools.cached_property
    def _chosen(self) -> frozenset[str] | None:
        """The ids of the mistakes that the limit leaves; None for all."""
        if self.limit is None:
            return None
        ids = (row.id for row in self._wrong())
        if self.seed is None:
            return frozenset(itertools.islice(ids, self.limit))
        return frozenset(heapq.nsmallest(self.limit, ids, key=functools.partial(curate.rank, self.seed)))

    def _wrong(self) -> Iterator[Attempt]:
        return (row for row in self._graded() if row.verdict is Verdict.WRONG)

    def _graded(self) -> Iterator[Attempt]:
        rows = records.read(self.attempts, Attempt)
        return map(last_number.graded, rows) if self.read_last_number else rows


_PASSED_OVER = {
    Verdict.UNPARSED: "unparsed, no answer could be read; --read_last_number reads the only number of a last sentence",
    Verdict.TRUNCATED: "truncated, so that nobody knows what they would have answered; sample with more tokens",
    Verdict.PROMPT_TOO_LONG: "never asked, as their prompt is too long for the student",
}


@dataclasses.dataclass(frozen=True)
class Survey:
    """How many attempts of a file have each verdict, and a problem of each family that has wrong ones."""

    verdicts: Mapping[Verdict, int]
    families: Mapping[str, Problem]

    def __str__(self) -> str:
        listed = [v for v in Verdict if self.verdicts.get(v) or v is not Verdict.PROMPT_TOO_LONG]
        return ", ".join(f"{self.verdicts.get(verdict, 0):,} {verdict}" for verdict in listed)

    def passed_over(self) -> list[str]:
        """A line for each kind of attempt that is neither right nor wrong: how many, and why."""
        counts = ((self.verdicts.get(verdict, 0), why) for verdict, why in _PASSED_OVER.items())
        return [f"  {count:7,} passed over: {why}" for count, why in counts if count]
