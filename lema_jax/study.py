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

from lema_jax import build_data, cli, correct, evaluate, flagged, interrupts, sample, stage, steps
from lema_jax import train as training
from lema_jax.data import arms
from lema_jax.data.encode import Limits
from lema_jax.evidence import study as results
from lema_jax.generation.decoding import Decoding
from lema_jax.metadata import read_metadata
from lema_jax.planning import checks, forecast, jobs, running
from lema_jax.planning import config as configs
from lema_jax.planning.config import STUDENT, StudyConfig, Test
from lema_jax.planning.jobs import Board, Job
from lema_jax.stage import option
from lema_jax.storage import RunFolder, on_disk, write
from lema_jax.tasks import sources
from lema_jax.tasks.questions import Questions
from lema_jax.training import compiled
from lema_jax.training.config import TrainConfig

# Settings of stages that shape no result: where it is written, from where it is read, how fast it is made.
_FREE = ("out", "attempts", "corrections", "checkpoint", "tokenizer", "data_dir", "job", "batch_size", "fsdp", "tensor")
_FREE_IN_TRAINING = (
    *("out", "init", "path", "log_every", "keep", "tensorboard", "wandb", "mesh"),
    *("scan_layers", "remat", "attention", "loss_chunk"),
)
_RUN: Mapping[str, Callable[[Any], Any]] = {
    "data": build_data.run,
    "train": training.run,
    "sample": sample.run,
    "correct": correct.run,
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
      study: what they say; None while no test is answered, and for --plan and --waves.
      page: the report.
    """

    out: Path
    done: tuple[str, ...]
    failed: tuple[str, ...]
    missing: tuple[str, ...]
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
    plan = jobs_of(studied)
    if config.waves:
        missing = [job for job in plan if not board.is_done(job)]
        print("\n".join(" ".join(job.id for job in wave) for wave in jobs.waves(missing)))
        return _result(board, plan)
    if config.plan:
        print("\n".join([forecast.plan(studied, board, plan), *_dollars(studied, board, plan)]))
        return _result(board, plan)
    checks.require_enough(studied, board, plan)
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
    return _result(board, plan) if config.job is not None else _report(board, _result(board, plan))


# --- plan and report --------------------------------------------------------------------------------------------


def _dollars(config: StudyConfig, board: Board, plan: Sequence[Job]) -> list[str]:
    """What a chat teacher would cost: of the attempts, where they are made, else at most."""
    asked = [job for job in plan if job.kind == "correct" and config.teacher.kind == "openai"]
    if not asked:
        return ["US$ 0: no endpoint is asked"]
    (job,) = asked
    assert isinstance(job.config, correct.Config)
    if all(board.is_done(other) for other in plan if other.id in job.needs):
        return [correct.run(dataclasses.replace(job.config, dry_run=True)).estimate]
    sampled = next(other for other in plan if other.kind == "sample")
    return [
        f"at most {round(sampled.work) * config.teacher.samples:,} requests to {config.teacher.model}; --plan says "
        "what they cost when the attempts are made"
    ]


def _result(board: Board, plan: Sequence[Job]) -> Result:
    states: dict[str, list[str]] = {"done": [], "failed": [], "missing": []}
    for job in plan:
        states[board.outcome(job).state].append(job.name)
    done, failed, missing = (tuple(states[state]) for state in ("done", "failed", "missing"))
    return Result(board.out, done, failed, missing)


def _report(board: Board, result: Result) -> Result:
    """Prints what the study says, and writes its page; without answers there is nothing to say."""
    content = board.read()
    if not content or not content["evaluations"]:
        return result
    study = results.load(board.out)
    text = results.text(study)
    page = board.out / "report.html"
    write(page, results.html(study))
    write(board.out / "report.txt", text + "\n")
    print(f"\n{text}\n\nThe page is at {page}")
    return dataclasses.replace(result, study=study, page=page)


# --- from configuration to jobs ---------------------------------------------------------------------------------------


def jobs_of(config: StudyConfig) -> list[Job]:
    """The jobs of a study, each after those that it needs.

    Raises:
      UserError: the student or the questions cannot be read.
    """
    return _Composer(config).compose()


class _Composer:
    """Makes a study's jobs, each after those that it needs."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._root = on_disk(config.out)
        self._data_dir = config.data_dir or None
        self._jobs: list[Job] = []
        self._digests: dict[tuple[str, str], str] = {}
        if config.pretraining and config.pretraining.train.model:
            self._model, self._student_is = config.pretraining.train.model, ""
        else:
            metadata = read_metadata(config.student)
            self._model, self._student_is = metadata.config, metadata.identity_at(steps.last_step(config.student))

    def compose(self) -> list[Job]:
        config = self._config
        student = self._student()
        corrections = self._corrections(student)
        for test in config.tests:
            self._evaluation(STUDENT, 0, self._student_folder(student), student, test)
        for seed in config.seeds:  # a study that is cut short has every arm for its first seeds
            for arm in config.arms:
                data = self._data(arm, seed, student, corrections)
                trained = self._training(arm, seed, data, student)
                for test in config.tests:
                    best = "@best" if config.checkpoint == "best" else ""
                    self._evaluation(arm, seed, f"{self._root / trained.out}{best}", [trained], test)
        return self._jobs

    def _add(
        self,
        kind: str,
        name: str,
        make: Callable[[str], stage.Config],
        needs: Sequence[Job],
        *,
        shaping: Mapping[str, Any],
        ending: str = "",
        **about: Any,
    ) -> Job:
        id = jobs.identity(kind, shaping, needs)
        out = f"{kind}/{name.replace(' ', '-').replace('/', '-')}-{id}{ending}"
        config, needed = make(str(self._root / out)), tuple(job.id for job in needs)
        job = Job(id, kind, f"{kind} {name}", config, needed, out, **about)
        self._jobs.append(job)
        return job

    def _shaping(self, config: stage.Config, needs: Sequence[Job], **more: Any) -> dict[str, Any]:
        """What shapes a stage's result, beside the jobs that it needs."""
        return jobs.given(config, _FREE) | self._given_student(needs) | more

    def _given_student(self, needs: Sequence[Job]) -> dict[str, str]:
        """What names the student, where no job of the study makes it."""
        made = any(job.kind == "train" for job in needs)
        return {} if made or not self._student_is else {"student": self._student_is}

    def _read(self, task: str, split: str) -> str:
        """What names a task's questions; the generated ones change only with the package."""
        if task == "arithmetic":
            return ""
        if (task, split) not in self._digests:
            self._digests[task, split] = sources.digest(checks.questions(self._config, task, split))
        return self._digests[task, split]

    def _student(self) -> list[Job]:
        """The jobs that make the student, whose last trains it; none where it is given."""
        config, how = self._config, self._config.pretraining
        if how is None:
            return []
        make = lambda out: build_data.Config(
            task=config.task,
            limit=how.questions or None,
            train_tokenizer=how.tokenizer_ids,
            overlap=config.mix.overlap,
            data_dir=self._data_dir,
            out=out,
        )
        shaping = jobs.given(make(""), _FREE) | {"questions": self._read(config.task, "train")}
        data = self._add("data", STUDENT, make, [], shaping=shaping, work=how.questions or 20_000)
        return [data, self._train(STUDENT, how.train, [data], {"path": str(self._root / data.out)})]

    def _student_folder(self, student: Sequence[Job]) -> str:
        return str(self._root / student[-1].out) if student else self._config.student

    def _corrections(self, student: Sequence[Job]) -> list[Job]:
        """The jobs that sample attempts and correct them; none where no arm wants any."""
        config, how = self._config, self._config.attempts
        wanted = any(arms.ARMS[arms.parse(name)[0]].example is not None for name in config.arms)
        if not wanted and not config.mix.own_attempts:
            return []
        make = lambda out: sample.Config(
            checkpoint=self._student_folder(student),
            prompt_style=how.prompt_style,
            questions=Questions(task=config.task, limit=how.questions or None, data_dir=self._data_dir),
            sampling=sample.Sampling(samples=how.samples, temperature=how.temperature, top_p=how.top_p, seed=how.seed),
            decoding=self._decoding(how.max_new_tokens),
            out=out,
        )
        count = (how.questions or 10_000) * how.samples
        shaping = self._shaping(make(""), student, questions=self._read(config.task, "train"))
        about = self._answers(count, how.max_new_tokens)
        attempts = self._add("sample", "attempts", make, student, shaping=shaping, ending=".jsonl", **about)
        return [attempts, *([self._correct(attempts)] if wanted else [])]

    def _correct(self, attempts: Job) -> Job:
        teacher = self._config.teacher
        make = lambda out: correct.Config(
            attempts=self._root / attempts.out,
            teacher=teacher.kind,
            limit=teacher.limit or None,
            seed=0 if teacher.limit else None,
            cut_at_first_error=teacher.cut_at_first_error,
            out=out,
            **teacher.asked(),
        )
        return self._add("correct", "corrections", make, [attempts], shaping=teacher.shaping(), ending=".jsonl")

    def _data(self, name: str, seed: int, student: Sequence[Job], corrections: Sequence[Job]) -> Job:
        config, mix = self._config, self._config.mix
        row, share = arms.parse(name)
        needs = [job for job in corrections if job.kind == "correct" or mix.own_attempts]
        if arms.ARMS[row].example is None:
            needs = [job for job in needs if job.kind != "correct"]
        files = {job.kind: (self._root / job.out,) for job in needs}
        equal: dict[str, Any] = {}
        if mix.equal != "steps":
            equal = {f"equal_{mix.equal}": mix.amount}
            if arms.ARMS[row].example is not None:
                equal["correction_share"] = share or mix.correction_share
        make = lambda out: build_data.Config(
            task=config.task,
            arm=row,
            attempts=files.get("sample", ()),
            corrections=files.get("correct", ()),
            gold_rationales=mix.gold_rationales,
            limit=mix.questions or None,
            tokenizer=self._student_folder(student),
            limits=Limits(None, None, mix.max_tokens or None),
            dev_questions=mix.dev_questions,
            overlap=mix.overlap,
            data_dir=self._data_dir,
            seed=seed,
            out=out,
            **equal,
        )
        shaping = self._shaping(make(""), student, questions=self._read(config.task, "train"))
        work = float(mix.amount or mix.questions or 10_000)
        named = f"{name} seed {seed}"
        return self._add("data", named, make, [*student, *needs], shaping=shaping, arm=name, seed=seed, work=work)

    def _training(self, name: str, seed: int, data: Job, student: Sequence[Job]) -> Job:
        order = {"order": "stored"} if arms.ARMS[arms.parse(name)[0]].first else {}
        changes: dict[str, Any] = {"seed": seed, "init": self._student_folder(student)}
        path, dev = str(self._root / data.out), self._config.training.dev
        if self._config.mix.dev_questions:
            changes["dev"] = dataclasses.replace(dev, path=f"{path}/dev")
        how = dataclasses.replace(self._config.training, **changes)
        read = {"path": path, "seed": seed, **order}
        return self._train(f"{name} seed {seed}", how, [*student, data], read, arm=name, seed=seed)

    def _train(self, name: str, how: TrainConfig, needs: Sequence[Job], data: Mapping[str, Any], **about: Any) -> Job:
        def make(out: str) -> training.Config:
            return training.Config(config=dataclasses.replace(how, out=out, data=dataclasses.replace(how.data, **data)))

        made = make("").config
        count = forecast.steps(self._config, made)
        about["work"] = float(count * forecast.rows(made.data) * made.data.seq_len)
        about["flops"] = count * forecast.step_flops(self._model, made)
        shaping = jobs.given(made, _FREE_IN_TRAINING) | self._given_student(needs)
        return self._add("train", name, make, needs, shaping=shaping, **about)

    def _evaluation(self, arm: str, seed: int, checkpoint: str, needs: Sequence[Job], test: Test) -> Job:
        config = self._config
        make = lambda out: evaluate.Config(
            checkpoint=(checkpoint,),
            task=(test.task,),
            split=(test.split,),
            limit=test.questions or None,
            prompt_style=test.style,
            data_dir=self._data_dir,
            decoding=self._decoding(config.max_new_tokens),
            out=out,
        )
        more = {"questions": self._read(test.task, test.split), "checkpoint": config.checkpoint}
        shaping = self._shaping(make(""), needs, **more)
        named = f"{arm} seed {seed} {test.name}"
        about = self._answers(test.questions or 1000, config.max_new_tokens)
        of: dict[str, Any] = {"arm": arm, "seed": seed, "test": test.name}
        return self._add("evaluate", named, make, needs, shaping=shaping, **of, **about)

    def _decoding(self, max_new_tokens: int) -> Decoding:
        return Decoding(max_new_tokens=max_new_tokens, batch_size=self._config.batch_size, dtype=self._config.dtype)

    def _answers(self, count: int, max_new_tokens: int) -> dict[str, Any]:
        return {"work": float(count), "flops": forecast.decoding_flops(self._model, count, max_new_tokens)}


command = cli.Command(
    "study",
    __doc__,
    Config,
    run,
    code=lambda result: 1 if result.failed else 0,
    codes={signal.SIGTERM: interrupts.PREEMPTED},
)
if __name__ == "__main__":
    command.main()
