"""The mistakes in a file of attempts, or all that has an answer: every one, or as many as a limit allows."""

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
    """The wrong attempts of a file, with `right` the right ones too, in its order.

    Reads the file on each pass: it may be larger than memory.

    Attributes:
      attempts: file written by `sample`.
      right: the right attempts too, which a critique judges.
      limit: the most mistakes; None for all.
      seed: draws `limit` mistakes at random; None takes the first ones. A larger limit draws a superset.
      read_last_number: also grade an attempt that states no answer, by the only number in its last sentence.
    """

    attempts: str | Path
    limit: int | None = None
    seed: int | None = None
    read_last_number: bool = False
    right: bool = False

    def __iter__(self) -> Iterator[Attempt]:
        return (row for row in self._wanted() if self._chosen is None or row.id in self._chosen)

    def survey(self) -> "Survey":
        """Counts the verdicts of all attempts in the file.

        Raises:
          UserError: the file is unreadable or damaged.
        """
        verdicts: collections.Counter[Verdict] = collections.Counter()
        families: dict[str, Problem] = {}
        for attempt in self._graded():
            verdicts[attempt.verdict] += 1
            if attempt.verdict in self.verdicts:
                families.setdefault(prompts.family(attempt.problem), attempt.problem)
        return Survey(verdicts, families)

    @functools.cached_property
    def _chosen(self) -> frozenset[str] | None:
        """The ids of the mistakes within the limit; None for all."""
        if self.limit is None:
            return None
        ids = (row.id for row in self._wanted())
        if self.seed is None:
            return frozenset(itertools.islice(ids, self.limit))
        return frozenset(heapq.nsmallest(self.limit, ids, key=functools.partial(curate.rank, self.seed)))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of the attempts that it has."""
        return (Verdict.RIGHT, Verdict.WRONG) if self.right else (Verdict.WRONG,)

    def _wanted(self) -> Iterator[Attempt]:
        return (row for row in self._graded() if row.verdict in self.verdicts)

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
    """The number of attempts with each verdict, and one problem of each family that has any of those wanted."""

    verdicts: Mapping[Verdict, int]
    families: Mapping[str, Problem]

    def __str__(self) -> str:
        listed = [v for v in Verdict if self.verdicts.get(v) or v is not Verdict.PROMPT_TOO_LONG]
        return ", ".join(f"{self.verdicts.get(verdict, 0):,} {verdict}" for verdict in listed)

    def passed_over(self) -> list[str]:
        """One line per verdict that is neither right nor wrong: how many, and why."""
        counts = ((self.verdicts.get(verdict, 0), why) for verdict, why in _PASSED_OVER.items())
        return [f"  {count:7,} passed over: {why}" for count, why in counts if count]
