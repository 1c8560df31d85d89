"""What makes a study impossible, found before it runs a job."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from lema_jax import tasks
from lema_jax.data import arms, curate
from lema_jax.errors import UserError
from lema_jax.planning import config as configs
from lema_jax.planning.config import StudyConfig
from lema_jax.planning.jobs import NAME, Board, Job
from lema_jax.records import Problem, Verdict
from lema_jax.teacher import reference

_LOOKED_AT = 100  # questions, whether the reference teacher can read their rationales


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
    training = _trained_on(config)
    if not mix.own_attempts:
        gold = sum(bool(one.rationale) for one in training)
        if not gold:
            raise UserError(f"the task {config.task} has no gold rationales; set config.mix.own_attempts")
        if mix.equal == "examples" and gold < mix.amount:
            raise UserError(
                f"config.mix.amount={mix.amount:,}, but there are {gold:,} gold rationales: an arm of chain of thought "
                "alone has fewer; ask for fewer, raise config.mix.questions, or set config.mix.own_attempts"
            )
    _require_reference(config)
    if config.evolution.count and any(one.choices for one in questions(config, config.task, "train")[:1]):
        raise UserError(
            f"config.evolution.count={config.evolution.count}: the task {config.task} asks to choose; new questions "
            "for it cannot be made, so set 0"
        )
    for job in plan:
        if board.is_done(job):
            _require_rows(config, board, job)


def _trained_on(config: StudyConfig) -> list[Problem]:
    """The training questions that overlap with no question of a user's own test, as `mix.overlap` says.

    Raises:
      UserError: there are some that do, and are to be refused; or no others.
    """
    training = questions(config, config.task, "train")[: config.mix.questions or None]
    if config.mix.overlap == "keep" or not config.own_tests:
        return training
    tested = [questions(config, test.task, test.split) for test in config.tests if test.task in config.own_tests]
    overlap = curate.Overlap(itertools.chain.from_iterable(tested))
    apart = [one for one in training if overlap.find(one.question) is None]
    if not apart or (config.mix.overlap == "refuse" and len(apart) < len(training)):
        shared = f"{len(training) - len(apart):,} of the {len(training):,} training questions of {config.task}"
        raise UserError(
            f"{shared} are questions of config.tests too; name a `split` in its rows, test on another file, or set "
            "config.mix.overlap"
        )
    return apart


def _require_reference(config: StudyConfig) -> None:
    """Refuses the reference teacher for questions that it cannot correct."""
    taught = [name for name in config.arms if arms.reads(name, "corrections") or arms.reads(name, "critiques")]
    if config.teacher.kind == "reference" and taught:
        for problem in questions(config, config.task, "train")[:_LOOKED_AT]:
            try:
                reference.require(problem)
            except UserError as error:
                raise UserError(f"the arms {', '.join(taught)} want a teacher: {error} (config.teacher)") from None


def _require_rows(config: StudyConfig, board: Board, job: Job) -> None:
    """Refuses arms for which a job that is done made no rows."""
    facts = board.outcome(job).facts
    counts: dict[str, int] = {}
    if job.kind == "correct":
        counts = {"corrections": facts["kept"]}
    elif job.kind == "critique":
        counts = {"critiques": facts["kept"]}
    elif job.kind == "sample" and job.name == "sample attempts":
        counts = {
            f"{verdict} attempts": facts["verdicts"].get(verdict, 0) for verdict in (Verdict.RIGHT, Verdict.WRONG)
        }
    for kind, count in counts.items():
        wanting = [name for name in config.arms if any(part.row.reads == kind for part in arms.parse(name))]
        if wanting and not count:
            raise UserError(
                f"{_NONE[kind].format(board.path(job, 'log'))}, but the arms {', '.join(wanting)} want some; "
                "sample more attempts, choose another teacher, or leave these arms out"
            )


_NONE = {
    "corrections": "the teacher gave no correction that was kept (see {})",
    "critiques": "the teacher gave no critique that was kept (see {})",
    "right attempts": "none of the student's attempts is right (see {})",
    "wrong attempts": "none of the student's attempts is wrong (see {})",
}
