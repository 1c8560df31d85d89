"""From a study's configuration to its jobs: which stage feeds which, and what shapes the result of each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lema_jax import build_data, correct, evaluate, sample, stage, steps
from lema_jax import train as training
from lema_jax.data import arms
from lema_jax.data.encode import Limits
from lema_jax.errors import UserError
from lema_jax.evidence.manifest import STUDENT
from lema_jax.generation.decoding import Decoding
from lema_jax.metadata import read_metadata
from lema_jax.planning import checks, forecast, jobs
from lema_jax.planning.config import StudyConfig, Test
from lema_jax.planning.jobs import Job
from lema_jax.storage import on_disk
from lema_jax.tasks import sources
from lema_jax.tasks.questions import Questions
from lema_jax.training.config import TrainConfig

# Settings of stages that shape no result: where it is written, from where it is read, how fast it is made.
_FREE = ("out", "attempts", "corrections", "checkpoint", "tokenizer", "data_dir", "job", "batch_size", "fsdp", "tensor")
_FREE_IN_TRAINING = (
    *("out", "init", "path", "log_every", "keep", "tensorboard", "wandb", "mesh"),
    *("scan_layers", "remat", "attention", "loss_chunk"),
)


def compose(config: StudyConfig) -> list[Job]:
    """The jobs of a study, each after those that it needs.

    Raises:
      UserError: the student or the questions cannot be read, or a stage would refuse its config.
    """
    return _Composer(config).jobs()


@dataclasses.dataclass(frozen=True)
class _Questions:
    """What names the questions of a split, and how many there are."""

    digest: str
    count: int


class _Composer:
    """Makes a study's jobs, each after those that it needs."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._root = on_disk(config.out)
        self._data_dir = config.data_dir or None
        self._jobs: list[Job] = []
        self._known: dict[tuple[str, str], _Questions] = {}
        if config.pretraining and config.pretraining.train.model:
            self._model, self._student_is = config.pretraining.train.model, ""
        else:
            metadata = read_metadata(config.student)
            self._model, self._student_is = metadata.config, metadata.identity_at(steps.last_step(config.student))

    def jobs(self) -> list[Job]:
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
        try:
            stage.require(config)  # what a stage would refuse is refused before any runs
        except UserError as error:
            raise UserError(f"{kind} {name}: {error}") from None
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
        return "" if task == "arithmetic" else self._questions(task, split).digest

    def _count(self, task: str, split: str, limit: int) -> int:
        """The questions of a split, at most `limit`; 0 for all."""
        return limit or self._questions(task, split).count

    def _questions(self, task: str, split: str) -> _Questions:
        if (task, split) not in self._known:
            found = checks.questions(self._config, task, split)
            self._known[task, split] = _Questions(sources.digest(found), len(found))
        return self._known[task, split]

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
        count = self._count(config.task, "train", how.questions)
        data = self._add("data", STUDENT, make, [], shaping=shaping, work=count)
        return [data, self._train(STUDENT, how.train, [data], {"path": str(self._root / data.out)}, count)]

    def _student_folder(self, student: Sequence[Job]) -> str:
        return str(self._root / student[-1].out) if student else self._config.student

    def _corrections(self, student: Sequence[Job]) -> list[Job]:
        """The jobs that sample attempts and correct them; none where no arm wants any."""
        config, how = self._config, self._config.attempts
        rows = [arms.ARMS[arms.parse(name)[0]] for name in config.arms]
        wanted = any(row.example is not None for row in rows)
        if not wanted and not config.mix.own_attempts and not any(row.pairs for row in rows):
            return []
        make = lambda out: sample.Config(
            checkpoint=self._student_folder(student),
            prompt_style=how.prompt_style,
            questions=Questions(task=config.task, limit=how.questions or None, data_dir=self._data_dir),
            sampling=sample.Sampling(samples=how.samples, temperature=how.temperature, top_p=how.top_p, seed=how.seed),
            decoding=self._decoding(how.max_new_tokens),
            out=out,
        )
        count = self._count(config.task, "train", how.questions) * how.samples
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
        of_solutions = arms.ARMS[row].pairs and arms.ARMS[row].example is None
        needs = [job for job in corrections if job.kind == "correct" or mix.own_attempts or of_solutions]
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
        work, named = float(self._examples(name)), f"{name} seed {seed}"
        return self._add("data", named, make, [*student, *needs], shaping=shaping, arm=name, seed=seed, work=work)

    def _examples(self, name: str) -> int:
        """About how many examples an arm has; exact where arms are equal in them."""
        mix, (row, share) = self._config.mix, arms.parse(name)
        if mix.equal != "examples":
            return self._count(self._config.task, "train", mix.questions)
        return round(mix.amount * (1 - (share or mix.correction_share))) if arms.ARMS[row].displaced else mix.amount

    def _training(self, name: str, seed: int, data: Job, student: Sequence[Job]) -> Job:
        order = {"order": "stored"} if arms.ARMS[arms.parse(name)[0]].first else {}
        changes: dict[str, Any] = {"seed": seed, "init": self._student_folder(student)}
        changes["objective"] = "preference" if arms.ARMS[arms.parse(name)[0]].pairs else "sft"
        path, dev = str(self._root / data.out), self._config.training.dev
        if self._config.mix.dev_questions:
            changes["dev"] = dataclasses.replace(dev, path=f"{path}/dev")
        how = dataclasses.replace(self._config.training, **changes)
        read = {"path": path, "seed": seed, **order}
        count = self._examples(name)
        return self._train(f"{name} seed {seed}", how, [*student, data], read, count, arm=name, seed=seed)

    def _train(
        self,
        name: str,
        how: TrainConfig,
        needs: Sequence[Job],
        data: Mapping[str, Any],
        examples: int,
        **about: Any,
    ) -> Job:
        def make(out: str) -> training.Config:
            return training.Config(config=dataclasses.replace(how, out=out, data=dataclasses.replace(how.data, **data)))

        made = make("").config
        count = forecast.steps(made, examples)
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
        about = self._answers(self._count(test.task, test.split, test.questions), config.max_new_tokens)
        of: dict[str, Any] = {"arm": arm, "seed": seed, "test": test.name}
        return self._add("evaluate", named, make, needs, shaping=shaping, **of, **about)

    def _decoding(self, max_new_tokens: int) -> Decoding:
        return Decoding(max_new_tokens=max_new_tokens, batch_size=self._config.batch_size, dtype=self._config.dtype)

    def _answers(self, count: int, max_new_tokens: int) -> dict[str, Any]:
        return {"work": float(count), "flops": forecast.decoding_flops(self._model, count, max_new_tokens)}
