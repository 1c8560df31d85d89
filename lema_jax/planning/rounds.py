"""What the rounds of an arm learn from, and how its examples and steps are shared by them."""

import dataclasses
from typing import Any

from lema_jax.planning.jobs import Job


@dataclasses.dataclass(frozen=True)
class Run:
    """The training of an arm with a seed: its name in the study, the row of arms that it is of, and its rounds."""

    name: str
    arm: str
    seed: int
    rounds: int

    def amount(self, total: int, number: int) -> int:
        """The share of round `number`, from 1, in a total; what does not divide goes to the first ones."""
        return total // self.rounds + (number <= total % self.rounds)

    def until(self, total: int, number: int) -> int:
        """The shares of the rounds up to and with this one."""
        return sum(self.amount(total, earlier) for earlier in range(1, number + 1))

    def called(self, number: int) -> str:
        """The name of a job of round `number`; the last one's is the arm's."""
        return f"{self.name} seed {self.seed}" + (f" round {number}" if number < self.rounds else "")

    def of(self, number: int) -> dict[str, Any]:
        """What the last round's jobs are of; a report reads no earlier one."""
        return {"arm": self.name, "seed": self.seed} if number == self.rounds else {}


@dataclasses.dataclass(frozen=True)
class Rows:
    """The jobs that make what arms learn from: attempts, and corrections and critiques of them."""

    sample: tuple[Job, ...] = ()
    correct: tuple[Job, ...] = ()
    critique: tuple[Job, ...] = ()

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(self.sample + other.sample, self.correct + other.correct, self.critique + other.critique)
