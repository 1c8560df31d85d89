"""How an arm's examples and steps are shared by its rounds."""

import dataclasses


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

    def of(self, number: int) -> dict[str, str | int]:
        """What the last round's jobs are of; a report reads no earlier one."""
        return {"arm": self.name, "seed": self.seed} if number == self.rounds else {}
