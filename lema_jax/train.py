"""Trains a model: reads a data set and what to start from, writes a model folder.

    python -m lema_jax.train --config=configs/smollm2_gsm8k.py --config.out=runs/lema --config.steps=60

Every field of the configuration can be overridden by `--config.field=…`, nested ones by `--config.a.b=…`. The same
command run again continues from the last checkpoint in `--config.out`. With --dry_run it trains nothing, and prints the
run's size, its memory per device and the first batch. On SIGTERM it saves and exits with code 42, by which a launcher
knows to run it again.
"""

import dataclasses
import signal

from lema_jax import cli, flagged, interrupts, records, stage, storage
from lema_jax.generation.judge import judge
from lema_jax.parallel import job
from lema_jax.parallel.job import Job
from lema_jax.records import Problem
from lema_jax.stage import group, option
from lema_jax.training import compiled, dry_run, loop
from lema_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` trains, and how."""

    config: TrainConfig = flagged.config_file(TrainConfig)
    allow_config_change: bool = option(False, "Continue a run although its configuration was changed.")
    dry_run: bool = option(False, "Train nothing; print the run's size and memory, and the first batch.")
    profile: str = option("", "Folder for a profiler's trace of a few steps; none by default.")
    job: Job = group(Job)

    def writes(self) -> str | None:
        return None if self.dry_run else self.config.out or None

    def join(self) -> bool:
        return job.join(self.job, preemptible=True)


@dataclasses.dataclass(frozen=True)
class Result:
    """The run's model folder, its last step, and that step's loss; NaN where no step was left to make."""

    out: str
    step: int
    loss: float


@stage.function
def run(config: Config) -> Result | None:
    """Trains until the last step; called again with the same config, continues from the last checkpoint.

    Returns None for a dry run.

    Raises:
      UserError: see `training.loop.run`.
      Interrupted: a signal came, and the run is saved.
    """
    train = config.config
    if config.dry_run:
        dry_run.show(train)
        return None
    judged = None
    if train.dev.questions:
        problems = list(records.read(storage.here(train.dev.path) / "problems.jsonl", Problem))[: train.dev.questions]
        judged = judge(problems, train.data.path, train.compute, train.dev.max_new_tokens)
    with compiled.kept_in(train.out):  # a run that goes on need not compile again
        step, loss = loop.run(
            train, allow_config_change=config.allow_config_change, judge=judged, profile=config.profile
        )
    return Result(train.out, step, loss)


command = cli.Command("train", __doc__, Config, run, codes={signal.SIGTERM: interrupts.PREEMPTED})
if __name__ == "__main__":
    command.main()
