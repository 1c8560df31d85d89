"""What makes a study impossible, found before it runs a job."""

from collections.abc import Sequence
from pathlib import Path

from lema_jax import tasks
from lema_jax.data import arms
from lema_jax.errors import UserError
from lema_jax.planning import config as configs
from lema_jax.planning.config import StudyConfig
from lema_jax.planning.jobs import NAME, Board, Job
from lema_jax.records import Problem


def begun(folder: Path) -> StudyConfig:
    """The configuration of the study in a folder.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    there = Board(folder).read()
    if there is None:
        raise UserError(f"--study={folder} holds no study; begin one by --config")
    found = configs.from_dict(there.config | {"out": str(folder)}, f"{folder}/{NAME}")
    if broken := found.problems():
        raise UserError(f"{folder}/{NAME}: {'; '.join(broken)}")
    return found


def questions(config: StudyConfig, task: str, split: str) -> list[Problem]:
    """All questions of a split."""
    return tasks.get(task).load(split, Path(config.data_dir) if config.data_dir else None)


def require_same(config: StudyConfig, board: Board) -> None:
    """Refuses a folder that holds a study of another task or student: its report would mix the two.

    Raises:
      UserError: names what differs.
    """
    if (there := board.read()) is None:
        return
    now = configs.as_dict(config)
    if differing := [name for name in ("task", "student", "pretraining") if there.config.get(name) != now[name]]:
        raise UserError(f"{board.out} holds a study of another {' and '.join(differing)}; choose another --config.out")


def require_enough(config: StudyConfig, board: Board, plan: Sequence[Job]) -> None:
    """Refuses a mix that the questions, or the corrections that are there, cannot fill.

    Raises:
      UserError: names what is missing, and the arms that want it.
    """
    mix = config.mix
    if not mix.own_attempts:
        gold = sum(bool(one.rationale) for one in questions(config, config.task, "train")[: mix.questions or None])
        if not gold:
            raise UserError(f"the task {config.task} has no gold rationales; set config.mix.own_attempts")
        if mix.equal == "examples" and gold < mix.amount:
            raise UserError(
                f"config.mix.amount={mix.amount:,}, but there are {gold:,} gold rationales: an arm of chain of thought "
                "alone has fewer; ask for fewer, raise config.mix.questions, or set config.mix.own_attempts"
            )
    wanting = [name for name in config.arms if arms.ARMS[arms.parse(name)[0]].example is not None]
    for job in plan:
        if job.kind == "correct" and wanting and board.is_done(job) and not board.outcome(job).facts["kept"]:
            raise UserError(
                f"the teacher gave no correction that was kept (see {board.path(job, 'log')}), but the arms "
                f"{', '.join(wanting)} want some; sample more attempts, choose another teacher, or leave these arms out"
            )
