"""From a study's configuration to its jobs: which stage feeds which, and what shapes the result of each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lema_jax import build_data, correct, evaluate, evolve, sample, stage, steps
from lema_jax import train as training
from lema_jax.data import arms, curate
from lema_jax.data.encode import Limits
from lema_jax.errors import UserError
from lema_jax.evidence.manifest import STUDENT
from lema_jax.generation.decoding import Decoding
from lema_jax.metadata import read_metadata
from lema_jax.planning import checks, forecast, jobs
from lema_jax.planning.config import StudyConfig, Test
from lema_jax.planning.jobs import Job
from lema_jax.planning.rounds import Rows, Run
from lema_jax.storage import on_disk
from lema_jax.tasks.questions import Questions
from lema_jax.teacher import evolution
from lema_jax.training.config import TrainConfig

_IN_A_PATH = str.maketrans(" /:,", "---+")  # a list of paths is separated by commas


def compose(config: StudyConfig) -> list[Job]:
    """The jobs of a study, each after those that it needs.

    Raises:
      UserError: the student or the questions cannot be read, or a stage would refuse its config.
    """
    return _Composer(config).jobs()


class _Composer:
    """Makes a study's jobs, each after those that it needs."""

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._root = on_disk(config.out)
        self._data_dir = config.data_dir or None
        self._jobs: list[Job] = []
        self._known: dict[tuple[str, str], forecast.Questions] = {}
        if config.pretraining and config.pretraining.train.model:
            self._model, self._given, self._student_is = config.pretraining.train.model, "", ""
        else:
            self._given = config.pretraining.train.init if config.pretraining else config.student
            metadata = read_metadata(self._given)
            self._model, self._student_is = metadata.config, metadata.identity_at(steps.last_step(self._given))

    def jobs(self) -> list[Job]:
        config = self._config
        student = self._student()
        rows = self._student_rows(student)
        for test in config.tests:
            self._evaluation(STUDENT, 0, self._student_folder(student), student, test)
        for seed in config.seeds:  # a study that is cut short has every arm for its first seeds
            for name, (arm, rounds) in config.compared.items():
                trained = self._rounds(Run(name, arm, seed, rounds), student, rows)
                for test in config.tests:
                    best = "@best" if config.checkpoint == "best" else ""
                    self._evaluation(name, seed, f"{self._root / trained.out}{best}", [trained], test)
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
        out = f"{kind}/{name.translate(_IN_A_PATH)}-{id}{ending}"
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
        return jobs.given(config, jobs.FREE) | self._given_student(needs) | more

    def _given_student(self, needs: Sequence[Job]) -> dict[str, str]:
        """What names the student, where no job of the study makes it."""
        made = any(job.kind == "train" for job in needs)
        return {} if made or not self._student_is else {"student": self._student_is}

    def _read(self, task: str, split: str) -> str:
        """What names a task's questions; none of the generated ones that have been the same since version 0.1.0."""
        return "" if task == "arithmetic" and split != "ood" else self._questions(task, split).digest

    def _tested(self) -> dict[str, list[str]]:
        """What names the questions of users' own tests, with which overlap is looked for."""
        own = [test for test in self._config.tests if test.task in self._config.own_tests]
        return {"tests": [self._read(test.task, test.split) for test in own]} if own else {}

    def _count(self, task: str, split: str, limit: int) -> int:
        """The questions of a split, at most `limit`; 0 for all."""
        count = self._questions(task, split).count
        return min(limit or count, count)

    def _questions(self, task: str, split: str) -> forecast.Questions:
        if (task, split) not in self._known:
            self._known[task, split] = forecast.read(checks.questions(self._config, task, split))
        return self._known[task, split]

    def _student(self) -> list[Job]:
        """The jobs that make the student, whose last trains it; none where it is given."""
        config, how = self._config, self._config.pretraining
        if how is None:
            return []
        make = lambda out: build_data.Config(
            task=config.task,
            limit=how.questions or None,
            tokenizer=how.train.init or None,
            train_tokenizer=None if how.train.init else how.tokenizer_ids,
            overlap=config.mix.overlap,
            tests=config.own_tests,
            data_dir=self._data_dir,
            out=out,
        )
        shaping = self._shaping(make(""), [], questions=self._read(config.task, "train"), **self._tested())
        count = self._count(config.task, "train", how.questions)
        data = self._add("data", STUDENT, make, [], shaping=shaping, work=count)
        return [data, self._train(STUDENT, how.train, [data], {"path": str(self._root / data.out)}, count)]

    def _student_folder(self, student: Sequence[Job]) -> str:
        return str(self._root / student[-1].out) if student else self._config.student

    def _wanted(self, names: Sequence[str]) -> tuple[bool, bool, bool]:
        """Whether arms want attempts, corrections and critiques."""
        correct, critique, sample = (
            any(arms.reads(name, kind) for name in names) for kind in ("corrections", "critiques", "attempts")
        )
        return sample or correct or critique or self._config.mix.own_attempts, correct, critique

    def _rows(
        self,
        label: str,
        model: str,
        needs: Sequence[Job],
        sample: bool,
        correct: bool,
        critique: bool,
        evolved: Job | None = None,
    ) -> Rows:
        """The jobs that sample a model's attempts, and have them corrected and judged, as far as they are wanted."""
        if not sample:
            return Rows()
        attempts = self._sample(f"attempts{label}", model, needs, evolved)
        return Rows(
            (attempts,),
            (self._teach("correct", f"corrections{label}", attempts),) if correct else (),
            (self._teach("critique", f"critiques{label}", attempts),) if critique else (),
        )

    def _sample(self, name: str, model: str, needs: Sequence[Job], evolved: Job | None) -> Job:
        config, how = self._config, self._config.attempts
        source: dict[str, Any] = {"task": config.task, "limit": how.questions or None, "data_dir": self._data_dir}
        if evolved is not None:
            source = {"problems": self._root / evolved.out}
        seed = how.seed if how.temperature else None  # greedy attempts draw nothing
        make = lambda out: sample.Config(
            checkpoint=model,
            prompt_style=how.prompt_style,
            questions=Questions(**source),
            sampling=sample.Sampling(samples=how.samples, temperature=how.temperature, top_p=how.top_p, seed=seed),
            decoding=self._decoding(how.max_new_tokens),
            out=out,
        )
        questions = config.evolution.count if evolved else self._count(config.task, "train", how.questions)
        needed = [*needs, *([evolved] if evolved else [])]
        read: dict[str, Any] = {} if evolved else {"questions": self._read(config.task, "train")}
        if not how.temperature:
            read["sampling.seed"] = how.seed  # as ids had it before greedy attempts were refused one
        shaping = self._shaping(make(""), needs, **read)
        about = self._answers(config.task, "train", questions * how.samples, how.max_new_tokens)
        return self._add("sample", name, make, needed, shaping=shaping, ending=".jsonl", **about)

    def _teach(self, kind: str, name: str, attempts: Job) -> Job:
        """The job that corrects attempts, or judges them."""
        teacher = self._config.teacher
        of: dict[str, Any] = (
            {"critique": True} if kind == "critique" else {"cut_at_first_error": teacher.cut_at_first_error}
        )
        make = lambda out: correct.Config(
            attempts=self._root / attempts.out,
            teacher=teacher.kind,
            limit=teacher.limit or None,
            seed=0 if teacher.limit else None,
            out=out,
            **of,
            **teacher.asked(),
        )
        work = min(attempts.work, teacher.limit or attempts.work) * teacher.samples
        about = {"work": work, "asks_endpoint": teacher.kind == "openai"}
        return self._add(kind, name, make, [attempts], shaping=teacher.shaping(), ending=".jsonl", **about)

    def _student_rows(self, student: Sequence[Job]) -> Rows:
        """The jobs that make rows of the student's attempts at the training questions, and at new ones."""
        how, model = self._config.evolution, self._student_folder(student)
        sampled, corrected, judged = self._wanted(self._config.arms)
        evolves = bool(how.count) and sampled
        rows = self._rows("", model, student, sampled, corrected or (evolves and not how.random_seeds), judged)
        if not evolves:
            return rows
        evolved = self._evolve(rows)
        new = self._rows(" evolved", model, student, sampled, corrected, judged, evolved)
        return rows + new

    def _evolve(self, rows: Rows) -> Job:
        """The job that makes new questions."""
        config, how = self._config, self._config.evolution
        chat = dataclasses.replace(config.teacher.asked()["chat"], temperature=how.temperature)
        seeds: dict[str, Any] = {"corrections": [self._root / job.out for job in rows.correct]}
        if how.random_seeds:
            seeds = {"seeds": "random", "task": config.task}
        make = lambda out: evolve.Config(
            **seeds,
            data_dir=self._data_dir,
            count=how.count,
            seed=how.seed,
            chat=chat,
            endpoint=config.teacher.asked()["endpoint"],
            out=out,
        )
        shaping = dataclasses.asdict(how) | {"model": chat.model, "max_tokens": chat.max_tokens}
        shaping |= {"base_url": config.teacher.base_url, "questions": self._read(config.task, "train")}
        needs = () if how.random_seeds else rows.correct
        about = {"work": how.count * (1 + evolution.ANSWERS), "asks_endpoint": True}
        return self._add("evolve", "questions", make, needs, shaping=shaping, ending=".jsonl", **about)

    def _rounds(self, run: Run, student: Sequence[Job], rows: Rows) -> Job:
        """The job that trains an arm; with rounds, the last of several, each after new attempts of the one before."""
        config, own = self._config, rows
        first = [] if config.arms_start == "base" else list(student)
        model, trained = first, None
        for number in range(1, run.rounds + 1):
            if trained is not None:
                label = f" {run.name} seed {run.seed} round {number}"
                fresh = self._fresh(run, label, trained)
                own = own + fresh if config.round_start == "student" else fresh
                model = first if config.round_start == "student" else [trained]
            data = self._data(run, number, student, rows, own)
            trained = self._training(run, number, data, model)
        assert trained is not None
        return trained

    def _fresh(self, run: Run, label: str, trained: Job) -> Rows:
        """Attempts of a round's model at the study's questions, new ones included, corrected and judged."""
        wanted = self._wanted([run.arm])
        model = str(self._root / trained.out)
        rows = self._rows(label, model, [trained], *wanted)
        for job in [job for job in self._jobs if job.kind == "evolve"]:
            rows += self._rows(f" evolved{label}", model, [trained], *wanted, job)
        return rows

    def _data(self, run: Run, number: int, student: Sequence[Job], cot: Rows, own: Rows) -> Job:
        """The data set of a round: chain of thought, in part of the attempts of `cot`, and own examples of `own`."""
        config, mix = self._config, self._config.mix
        part, *others = arms.parse(run.arm)
        pairs = arms.row(run.arm).pairs  # they are all that the arm learns from
        attempts = cot.sample if mix.own_attempts and not pairs else ()
        more: dict[str, Any] = {}
        if arms.reads(run.arm, "attempts"):
            attempts = own.sample
            more |= {} if pairs else {"own_attempts": mix.own_attempts}
        corrections = own.correct if arms.reads(run.arm, "corrections") else ()
        critiques = own.critique if arms.reads(run.arm, "critiques") else ()
        file = lambda made: tuple(self._root / job.out for job in made)
        if mix.equal != "steps":
            more[f"equal_{mix.equal}"] = mix.amount
            if not others and arms.shares(run.arm, mix.correction_share):
                more["correction_share"] = part.share or mix.correction_share
        if run.rounds > 1:
            more |= self._share_of(run, number)
        make = lambda out: build_data.Config(
            task=config.task,
            arm=run.arm if others else run.arm.partition("@")[0],
            attempts=file(attempts),
            corrections=file(corrections),
            critiques=file(critiques),
            gold_rationales=mix.gold_rationales,
            limit=mix.questions or None,
            tokenizer=self._student_folder(student),
            limits=Limits(None, None, mix.max_tokens or None),
            dev_questions=mix.dev_questions,
            overlap=mix.overlap,
            tests=config.own_tests,
            data_dir=self._data_dir,
            seed=run.seed,
            out=out,
            **more,
        )
        needs = [*student, *attempts, *corrections, *critiques]
        shaping = self._shaping(make(""), student, questions=self._read(config.task, "train"), **self._tested())
        work = float(self._examples(run, number))
        return self._add("data", run.called(number), make, needs, shaping=shaping, work=work, **run.of(number))

    def _share_of(self, run: Run, number: int) -> dict[str, int]:
        """The options of a round's data: all that the rounds so far have, or what no round before has."""
        mix = self._config.mix
        amount = {f"equal_{mix.equal}": self._amount(run, number)}
        if self._config.round_start == "student":
            return amount
        shares = arms.shares(run.arm, mix.correction_share)
        taken = (curate.cot_of(run.amount(mix.amount, earlier), shares) for earlier in range(1, number))
        return amount | {"skip_cot": sum(taken)}

    def _amount(self, run: Run, number: int) -> int:
        """Of the mix's amount, what a round's data set has: the rounds' so far, or its own."""
        of = run.until if self._config.round_start == "student" else run.amount
        return of(self._config.mix.amount, number)

    def _examples(self, run: Run, number: int) -> int:
        """About how many examples a round of an arm has; exact where arms are equal in them."""
        mix = self._config.mix
        if mix.equal != "examples":
            return self._count(self._config.task, "train", mix.questions)
        amount = self._amount(run, number)
        shares = arms.shares(run.arm, mix.correction_share)
        return round(amount * (1 - sum(shares))) if arms.row(run.arm).displaced else amount

    def _training(self, run: Run, number: int, data: Job, model: Sequence[Job]) -> Job:
        order = {"order": "stored"} if arms.row(run.arm).first else {}
        init = str(self._root / model[-1].out) if model else self._given
        objective = "preference" if arms.row(run.arm).pairs else "sft"
        changes: dict[str, Any] = {"seed": run.seed, "init": init, "objective": objective}
        path, how = str(self._root / data.out), self._config.training
        if self._config.mix.dev_questions:
            changes["dev"] = dataclasses.replace(how.dev, path=f"{path}/dev")
        if run.rounds > 1 and self._config.round_start == "last":  # the rounds share the length of one training
            changes |= {
                name: run.amount(getattr(how, name), number) for name in ("steps", "tokens") if getattr(how, name)
            }
        how = dataclasses.replace(how, **changes)
        read = {"path": path, "seed": run.seed, **order}
        return self._train(run.called(number), how, [*model, data], read, self._examples(run, number), **run.of(number))

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
        shaping = jobs.given(made, jobs.FREE_IN_TRAINING) | self._given_student(needs)
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
        count = self._count(test.task, test.split, test.questions)
        about = self._answers(test.task, test.split, count, config.max_new_tokens)
        return self._add("evaluate", named, make, needs, shaping=shaping, arm=arm, seed=seed, test=test.name, **about)

    def _decoding(self, max_new_tokens: int) -> Decoding:
        return Decoding(max_new_tokens=max_new_tokens, batch_size=self._config.batch_size, dtype=self._config.dtype)

    def _answers(self, task: str, split: str, count: int, max_new_tokens: int) -> dict[str, Any]:
        questions = self._questions(task, split)
        return {"work": float(count), "flops": forecast.decoding_flops(self._model, count, questions, max_new_tokens)}
