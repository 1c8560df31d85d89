"""Trains a model: reads a data set and what to start from, writes a model folder.

    python -m lema_jax.train --config=configs/smollm2_gsm8k.py --config.out=runs/lema --config.steps=60

Every field of the configuration can be overridden by `--config.field=…`, nested ones by `--config.a.b=…`. The same
command run again continues from the last checkpoint in `--config.out`. With --dry_run nothing is trained: it says what
would be, how large it is on each device, and shows the first batch. Told to stop (SIGTERM), it saves and exits with
code 42, by which a launcher knows to run it again.
"""

import signal
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from lema_jax import cli, interrupts, records, storage
from lema_jax.errors import UserError
from lema_jax.generation.judge import judge
from lema_jax.parallel import job
from lema_jax.records import Problem
from lema_jax.training import compiled, dry_run, loop
from lema_jax.training.config import TrainConfig

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with get_config().")
_ALLOW = flags.DEFINE_bool("allow_config_change", False, "Continue a run although its configuration was changed.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only say what would be trained, and show the first batch.")
_PROFILE = flags.DEFINE_string("profile", "", "A folder for a profiler's trace of a few steps.")


def main(argv: Sequence[str]) -> None:
    """The door of `training.loop.run`."""
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]!r}; fields are set by --config.field=value")
    config = cli.config_of(_CONFIG, TrainConfig)
    if _DRY_RUN.value:
        dry_run.show(config)
        return
    if config.out:
        compiled.use(config.out)  # a run that goes on need not compile again
    judged = None
    if config.dev.questions:
        problems = list(records.read(storage.here(config.dev.path) / "problems.jsonl", Problem))[: config.dev.questions]
        judged = judge(problems, config.data.path, config.compute, config.dev.max_new_tokens)
    try:
        loop.run(config, allow_config_change=_ALLOW.value, judge=judged, profile=_PROFILE.value)
    except loop.Preempted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(interrupts.exit_code(stopped.number))


def _writes() -> str | None:
    return None if _DRY_RUN.value else cli.config_of(_CONFIG, TrainConfig).out or None


if __name__ == "__main__":
    cli.run(main, out=_writes, first=lambda: job.join(heeds_notice=True), codes={signal.SIGTERM: interrupts.PREEMPTED})
