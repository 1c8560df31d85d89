"""The questions that a stage asks: those of a task's split, or of a file of problems."""

import dataclasses
from pathlib import Path

from lema_jax import records, tasks
from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.stage import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions: those of a task, or of a file."""

    task: str = option("", "Task whose questions to ask: " + tasks.LISTED + ".")
    split: str = option("train", "Split of the task to read: train, test, …")
    data_dir: Path | str | None = option(None, "Folder with the publishers' files; by default the variable LEMA_DATA.")
    problems: Path | str | None = option(None, "File of problems to ask instead of a task's, such as evolve makes.")
    limit: int | None = option(
        None, "Ask only the first so many questions; of published attempts, those that have any.", low=1
    )

    def load(self) -> list[Problem]:
        """The questions, all of them: `limit` is for the caller to apply.

        Raises:
          UserError: a file that is absent, damaged or empty.
        """
        if not self.problems:
            return tasks.get(self.task).load(self.split, Path(self.data_dir) if self.data_dir else None)
        problems = list(records.read(self.problems, Problem))
        if not problems:
            raise UserError(f"{self.problems} holds no problem")
        return problems
