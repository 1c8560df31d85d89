"""Answers by one command whether learning from mistakes helps a student: every arm, several seeds, one report.

Reads   a file of configs/ that says student, questions, attempts, teacher, arms, seeds and tests.
Writes  the study's folder: what every stage made, and study.json, report.html and report.txt.

  python -m lema_jax.study --config=configs/study_arithmetic.py --plan
  python -m lema_jax.study --config=configs/study_arithmetic.py [--config.out=runs/study] [--jobs=2]
  python -m lema_jax.study --study=runs/study --job=3f2a91c04b

--plan prints the jobs, what is done, the difference that the study could show, and what it takes. Killed anywhere, the
same command goes on; a job that fails is reported and the others go on. Another configuration in the same folder runs
only the jobs that differ. --job runs one job, so that a queue can spread them over machines that share the folder:
--waves lists the missing ones, each line needing only those above it.
"""

import dataclasses
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lema_jax import build_data, cli, correct, evaluate, evolve, flagged, interrupts, sample, stage, study_jobs
from lema_jax import train as training
from lema_jax.data import card
from lema_jax.evidence import study as results
from lema_jax.planning import checks, forecast, jobs, running
from lema_jax.planning import config as configs
from lema_jax.planning.config import StudyConfig
from lema_jax.planning.jobs import Board, Job
from lema_jax.stage import option
from lema_jax.storage import RunFolder, write
from lema_jax.training import compiled

_RUN: Mapping[str, Callable[[Any], Any]] = {
    "data": build_data.run,
    "train": training.run,
    "sample": sample.run,
    "correct": correct.run,
    "critique": correct.run,
    "evolve": evolve.run,
    "evaluate": evaluate.run,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` studies, and how much of it now."""

    config: StudyConfig | None = flagged.config_file(StudyConfig, required=False)
    study: Path | str | None = option(None, "Folder of a study to go on with, instead of --config.")
    plan: bool = option(False, "Run nothing; print the jobs, what is done, and what the rest takes.")
    waves: bool = option(
        False, "Run nothing; print the ids of the missing jobs, a line for those that can run at once."
    )
    job: str | None = option(None, "Id of the one job to run; the jobs that it needs must be done.")
    jobs: int = option(1, "Processes on this machine that run jobs at a time.", low=1, high=1024)

    def problems(self) -> list[str]:
        if (self.config is None) == (self.study is None):
            return ["give either --config, a file of configs/, or --study, the folder of a study that was begun"]
        if [self.plan, self.waves, self.job is not None].count(True) > 1:
            return ["give one of --plan, --waves and --job"]
        return [f"--{problem}" for problem in self.config.problems()] if self.config else []

    def writes(self) -> Path | str | None:
        if self.plan or self.waves or self.job:
            return None
        return self.config.out if self.config else self.study


@dataclasses.dataclass(frozen=True)
class Result:
    """A study.

    Attributes:
      out: its folder.
      done, failed, missing: the names of its jobs.
      whole: all of its jobs were to be run; a failure is then this call's.
      study: what they say; None while no test is answered, and for --plan and --waves.
      page: the report.
    """

    out: Path
    done: tuple[str, ...]
    failed: tuple[str, ...]
    missing: tuple[str, ...]
    whole: bool = False
    study: results.Study | None = None
    page: Path | None = None


@stage.function
def run(config: Config) -> Result:
    """Runs the jobs that are not done, and reports what all of them say.

    Raises:
      UserError: a study that contradicts itself, or cannot be run; a folder that holds another; a job that is not
        there, or cannot run yet.
      Interrupted: a signal came while a job was saving its work.
    """
    studied = config.config or checks.begun(Path(config.study or ""))
    board = Board(studied.out)
    checks.require_same(studied, board)
    plan = study_jobs.compose(studied)
    checks.require_enough(studied, board, plan)
    if config.waves:
        missing = [job for job in plan if not board.is_done(job)]
        print("\n".join(" ".join(job.id for job in wave) for wave in jobs.waves(missing)))
        return _result(board, plan)
    if config.plan:
        print(forecast.plan(studied, board, plan))
        _print_dollars(studied, board, plan)
        return _result(board, plan)
    board.write(configs.as_dict(studied), plan)
    with compiled.kept_in(board.out):  # arms and seeds share their programs
        if config.job is not None:
            ended = running.named(board, plan, config.job, _RUN)
        elif config.jobs > 1:
            ended = running.in_processes(board, plan, config.jobs)
        else:
            ended = running.here(board, plan, _RUN)
        for _ in ended:
            compiled.seal(RunFolder(board.out))
            board.write(configs.as_dict(studied), plan)
    result = _result(board, plan)
    return result if config.job is not None else _report(board, dataclasses.replace(result, whole=True))


# --- plan and report --------------------------------------------------------------------------------------------------


def _print_dollars(config: StudyConfig, board: Board, plan: Sequence[Job]) -> None:
    """What a chat teacher would cost: for the attempts, where they are made, else the most that it is asked."""
    if config.teacher.kind != "openai":
        print("US$ 0: no endpoint is asked")
        return
    asked = [job for job in plan if job.asks_endpoint and not board.is_done(job)]
    if not asked:
        print("US$ 0: every request is answered")
    there = {job.id for job in plan if board.is_done(job)}
    unknown = 0
    for job in asked:
        if there.issuperset(job.needs):
            print(f"{job.name}:")
            _RUN[job.kind](dataclasses.replace(job.config, dry_run=True))  # type: ignore[call-arg]  # prints its estimate
        else:
            unknown += round(job.work)
    if unknown:
        print(
            f"at most {unknown:,} requests to {config.teacher.model}; --plan says what they cost when the attempts are "
            "made"
        )
    if len(asked) > 1 and config.teacher.max_cost_usd is not None:
        print(f"each of the {len(asked)} jobs that ask it may take up to US$ {config.teacher.max_cost_usd:,g}")


def _result(board: Board, plan: Sequence[Job]) -> Result:
    states: dict[str, list[str]] = {"done": [], "failed": [], "missing": []}
    for job in plan:
        states[board.outcome(job).state].append(job.name)
    done, failed, missing = (tuple(states[state]) for state in ("done", "failed", "missing"))
    return Result(board.out, done, failed, missing)


def _report(board: Board, result: Result) -> Result:
    """Prints what the study says, and writes its page; without answers there is nothing to say."""
    there = board.read()
    if there is None or not there.evaluations:
        return result
    study = results.load(board.out, card.funnel)
    text = results.text(study)
    page = board.out / "report.html"
    write(page, results.html(study))
    write(board.out / "report.txt", text + "\n")
    print(f"\n{text}\n\nThe page is at {page}")
    return dataclasses.replace(result, study=study, page=page)


command = cli.Command(
    "study",
    __doc__,
    Config,
    run,
    code=lambda result: 1 if result.whole and (result.failed or result.missing) else 0,
    codes={signal.SIGTERM: interrupts.PREEMPTED},
)
if __name__ == "__main__":
    command.main()
