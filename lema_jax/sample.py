"""Reasoning paths of a student: its attempts at questions, graded, with all that made them.

Reads   a task's questions (--task), or a file of problems, such as those of `evolve` (--problems). A student is a model
        folder (--checkpoint), a chat endpoint (--student=openai), or one whose wrong solutions others have published
        (--student=stepverify: people's, with the step that a teacher marked; --student=mathcritique: Llama-3-8B's).
Writes  attempts.jsonl: every attempt, right or wrong. `correct` takes the wrong ones, `build_data` the right ones. With
        --mode the ones of a kind are written once more beside it, each text of a question once: the right ones
        (attempts.cot_augment.jsonl) or the mistakes (attempts.mistakes.jsonl), of all students in the file.

  python -m lema_jax.sample --checkpoint=runs/student --task=gsm8k --samples=4 --temperature=0.7 --out=attempts.jsonl
  python -m lema_jax.sample --student=openai --model=gpt-4o --prompt_style=few_shot --task=gsm8k --samples=4 \\
      --mode=cot_augment --out=attempts.jsonl --max_cost_usd=20 [--base_url=http://localhost:8000/v1] [--dry_run]

What an attempt of a checkpoint draws depends on its question, settings and number alone. The same command run again
samples only what is missing; other students, more samples or more questions add to the file. The replies of an
endpoint are kept beside it (attempts.replies.jsonl); its key is read from OPENAI_API_KEY.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lema_jax import cli, records, stage, storage
from lema_jax.data import curate
from lema_jax.errors import UserError
from lema_jax.generation.decoding import Decoding
from lema_jax.parallel import job
from lema_jax.parallel.job import Job
from lema_jax.records import Appender, Attempt, Problem, Verdict, row_id
from lema_jax.stage import group, option
from lema_jax.tasks import prompts, published
from lema_jax.tasks.questions import Questions
from lema_jax.teacher import answering, chat, endpoint
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.endpoint import Endpoint

if TYPE_CHECKING:
    from lema_jax.generation.engine import Engine
    from lema_jax.generation.student import Student

_SELECTED = {"cot_augment": Verdict.RIGHT, "mistakes": Verdict.WRONG}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling: how many attempts at a question, and how they are drawn."""

    samples: int = option(1, "Attempts at each question.", low=1, high=10**5)
    difficulty_weighted: bool = option(False, "Sample hard questions more often, up to --max_samples.")
    max_samples: int | None = option(None, "Attempts at a question that failed each time.", low=2, high=10**5)
    temperature: float = option(0.7, "Temperature of sampling; 0 is greedy.", low=1e-6, high=100, also=(0,))
    top_p: float = option(1.0, "Smallest set of tokens to sample from, by their share of probability.", low=0, high=1)
    seed: int | None = option(
        None, "Seed of sampling; 0 by default for a checkpoint, and none is sent to an endpoint.", low=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` samples."""

    student: str = option(
        "checkpoint",
        "Who attempts: a model folder, a chat endpoint, or one whose wrong solutions are published.",
        choices=("checkpoint", "openai", *published.NAMES),
    )
    checkpoint: Path | str = option("", "Model folder of convert or train, for --student=checkpoint.")
    step: int | None = option(None, "Step of the checkpoint to sample from; the last by default.", low=0)
    model: str = option("", "Model of --student=openai, by the name that the endpoint knows it by.")
    prompt_style: str = option(
        "paper", "How questions are asked; see evaluate (chat: an endpoint's own way).", choices=prompts.STYLES
    )
    examples: Path | str | None = option(
        None, "Text file of worked examples for few_shot; the package's own by default."
    )
    mode: str = option(
        "all",
        "Also write a file of the right attempts (cot_augment), or of the wrong ones (mistakes).",
        choices=("all", *_SELECTED),
    )
    out: Path | str = option(help="File of attempts to write, or to go on with.")
    dry_run: bool = option(False, "Ask nothing; print what an endpoint would be asked and what it would cost.")
    questions: Questions = group(Questions)
    sampling: Sampling = group(Sampling)
    decoding: Decoding = group(Decoding, max_new_tokens=512)
    endpoint: Endpoint = group(Endpoint)
    job: Job = group(Job)

    def problems(self) -> list[str]:
        return [*self._of_another_student(), *self._contradictions()]

    def writes(self) -> Path | str | None:
        return None if self.dry_run else self.out

    def join(self) -> bool:
        return self.student != "checkpoint" or job.join(self.job, preemptible=False)

    def _of_another_student(self) -> list[str]:
        given = set(stage.changed(self))
        of_checkpoint = {"checkpoint", "step", *stage.names(Decoding)} - {"max_new_tokens"}
        of_endpoint = {"model", "dry_run", *stage.names(Endpoint)}
        of_both = {"prompt_style", "examples", "max_new_tokens", *stage.names(Sampling)}
        strange = {"checkpoint": of_endpoint, "openai": of_checkpoint}
        found = given & strange.get(self.student, of_checkpoint | of_endpoint | of_both)
        return [
            f"--{name} is not for --student={self.student}; leave it out, or choose another" for name in sorted(found)
        ]

    def _contradictions(self) -> Iterator[str]:
        needed = {"checkpoint": "checkpoint", "openai": "model"}.get(self.student)
        if needed and not getattr(self, needed):
            yield f"--student={self.student} needs --{needed}"
        if storage.is_remote(self.out):
            yield f"--out={self.out} must be on this disk, since a file in the store cannot grow"
        if bool(self.questions.task) == bool(self.questions.problems):
            yield "give either --task or --problems: a task's questions, or a file of them"
        if self.questions.problems and self.questions.split != "train":
            yield "--split is of --task; a file of --problems is read whole"
        how = self.sampling
        if how.difficulty_weighted != (how.max_samples is not None):
            yield "--difficulty_weighted and --max_samples go together: give both or none"
        if how.max_samples is not None and how.max_samples <= how.samples:
            yield f"--max_samples={how.max_samples} must be above --samples={how.samples}"
        if how.temperature == 0 and (how.max_samples or how.samples) > 1:
            yield "several attempts at --temperature=0 would all be the same; raise it, or take one sample"
        if how.temperature == 0 and (how.top_p < 1 or how.seed is not None):
            yield "--temperature=0 is greedy, and has no --top_p or --seed; raise it, or leave these out"


@dataclasses.dataclass(frozen=True)
class Result:
    """What the file of attempts holds of the config's own, by verdict.

    `selection`: the file of --mode, where there is one. `estimate`: what a dry run would ask and pay, in words.
    """

    out: Path
    attempts: int = 0
    questions: int = 0
    verdicts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    selection: Path | None = None
    estimate: str = ""


@stage.function
def run(config: Config) -> Result:
    """Samples the attempts that the file lacks, counts the verdicts and writes the selection.

    Raises:
      UserError: a config that contradicts itself; questions, a model folder or worked examples that cannot be read; a
        file that holds attempts at other questions of the same ids; an endpoint that needs the user (its answers are
        kept).
    """
    if config.student in published.NAMES:
        return _take_published(config)
    style = config.prompt_style
    if config.student == "checkpoint":
        from lema_jax import metadata  # it loads JAX, which an endpoint's user need not wait for

        style = prompts.of_model(style, metadata.read_metadata(config.checkpoint).prompt_style)
    prompt = prompts.style(style, config.examples, _as_chat(config))
    asked = [(problem, prompt(problem)) for problem in config.questions.load()[: config.questions.limit]]
    if config.student == "openai":
        return _sample_endpoint(config, asked)
    return _sample_checkpoint(config, asked)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """An attempt that the file shall hold. `style`: of its prompt."""

    problem: Problem
    prompt: str
    student: str
    sampling: Mapping[str, Any]
    style: str

    @functools.cached_property
    def id(self) -> str:
        return row_id(model=self.student, problem=self.problem.id, prompt=self.prompt, **self.sampling)

    def row(self, **fields: Any) -> Attempt:
        """The attempt that it became; fields: text, answer, verdict and the token counts."""
        shared = {"id": self.id, "problem": self.problem, "prompt": self.prompt, "sampling": dict(self.sampling)}
        return Attempt(**shared, student=self.student, **fields)


def _wanted(
    student: str, settings: Mapping[str, Any], style: str, problem: Problem, prompt: str, sample: int
) -> _Wanted:
    return _Wanted(problem, prompt, student, {**settings, "sample": sample}, style)


Answer = Callable[[Sequence[_Wanted]], object]  # answers what the file lacks, as far as it can


def _as_chat(config: Config) -> Callable[[str], str]:
    """What makes of a user's message what the student reads: an endpoint as it is, a checkpoint by its own template."""
    if config.student == "openai" or config.prompt_style != "chat":
        return lambda message: message
    from lema_jax.data import tokenizer  # it loads transformers, which an endpoint's user need not wait for

    return functools.partial(tokenizer.as_chat, tokenizer=tokenizer.load(config.checkpoint))


def _rounds(
    how: Sampling,
    asked: Sequence[tuple[Problem, str]],
    wanted: Callable[[Problem, str, int], _Wanted],
    file: Appender[Attempt],
    answer: Answer,
) -> list[str]:
    """Makes the attempts at every question, then more at those that the first ones failed; returns the ids wanted.

    The attempts grow linearly with the share that failed, from `samples` to `max_samples` (as DART-Math's, arXiv
    2407.13690, that are in proportion to difficulty). The draw repeats itself, so a rerun wants the same ones.
    """

    def round_of(numbers: Callable[[Problem], range]) -> list[str]:
        these = [wanted(problem, prompt, number) for problem, prompt in asked for number in numbers(problem)]
        _require_same_golds(file, these)
        answer(these)
        return [one.id for one in these]

    ids = round_of(lambda _: range(how.samples))
    if how.max_samples is None:
        return ids
    rows = (file.rows[id] for id in ids if id in file.rows)
    failed = collections.Counter(row.problem.id for row in rows if row.verdict is not Verdict.RIGHT)
    more = how.max_samples - how.samples
    return ids + round_of(
        lambda problem: range(how.samples, how.samples + -(-more * failed[problem.id] // how.samples))
    )


def _require_same_golds(file: Appender[Attempt], wanted: Iterable[_Wanted | Attempt]) -> None:
    """Refuses a file whose attempts were graded by other golds: a task's file may be changed, and keep its ids."""
    for one in wanted:
        if one.id in file.rows:
            there = file.rows[one.id].problem
            if (there.gold, there.choices) != (one.problem.gold, one.problem.choices):
                raise UserError(
                    f"{file.path} holds attempts at question {there.id} graded by the gold {there.gold[:60]!r}, but it "
                    f"is {one.problem.gold[:60]!r} now; choose another --out, or remove the file"
                )


def _finish(config: Config, file: Appender[Attempt], wanted: Iterable[str]) -> Result:
    """Writes the rows in the order wanted, behind those of other commands, and the selection; counts the verdicts."""
    made = file.arrange(wanted)
    counts: collections.Counter[str] = collections.Counter(file.rows[id].verdict for id in made)
    questions = len({file.rows[id].problem.id for id in made})
    shown = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.most_common())
    print(f"{file.path}: {len(made):,} attempts at {questions:,} questions: {shown}")
    if others := len(file.rows) - len(made):
        print(f"it also has {others:,} attempts of other students, settings or questions")
    selection = None
    if config.mode != "all":
        selection = file.path.with_suffix(f".{config.mode}.jsonl")
        written = records.write(selection, _select(records.read(file.path, Attempt), _SELECTED[config.mode]))
        print(f"{selection}: {written:,} of all {len(file.rows):,} attempts")
    return Result(Path(config.out), len(made), questions, dict(counts), selection)


def _select(rows: Iterable[Attempt], verdict: Verdict) -> Iterator[Attempt]:
    """The rows of a verdict, each text of a question once, white space and case aside."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        text = (row.problem.id, curate.normal(row.text))
        if row.verdict is verdict and text not in seen:
            seen.add(text)
            yield row


def _take_published(config: Config) -> Result:
    questions = config.questions
    data_dir = Path(questions.data_dir) if questions.data_dir else None
    rows = published.attempts(config.student, questions.load(), data_dir, questions.limit)
    with Appender(config.out, Attempt) as file:
        _require_same_golds(file, rows)
        file.extend(row for row in rows if row.id not in file.rows)
        return _finish(config, file, [row.id for row in rows])


# --- a checkpoint -----------------------------------------------------------------------------------------------------


def _sample_checkpoint(config: Config, asked: Sequence[tuple[Problem, str]]) -> Result:
    from lema_jax import checkpoint  # these load JAX, which an endpoint's user need not wait for
    from lema_jax.generation import student

    folder, how = str(config.checkpoint), config.sampling
    step = checkpoint.latest_step(folder) if config.step is None else config.step
    settings: dict[str, Any] = {
        "temperature": how.temperature,
        "top_p": how.top_p,
        "seed": how.seed or 0,
        "max_new_tokens": config.decoding.max_new_tokens,
        **config.decoding.precision(),
    }
    if config.prompt_style == "chat":
        settings["rendered"] = True  # prompts are a template's, which writes all special tokens: see encode.prompt_ids
    wanted = functools.partial(_wanted, checkpoint.identity(folder, step), settings, config.prompt_style)
    read = functools.cache(functools.partial(config.decoding.read, folder, step))  # both rounds answer by it
    with job.printed_once(), job.written_by_the_first(config.out) as path, Appender(path, Attempt) as file:

        def answer(these: Sequence[_Wanted]) -> None:
            by_id = {one.id: one for one in these}
            asking = [student.Asked(one.id, one.problem, one.prompt) for one in these]
            row = lambda *, id, problem, prompt, **fields: by_id[id].row(**fields)
            student.answer(asking, file, functools.partial(_engine, config, read), row)

        return _finish(config, file, _rounds(how, asked, wanted, file, answer))


def _engine(config: Config, read: Callable[[], "Student"], answers: int) -> "Engine":
    from lema_jax.model import decode

    drawn = decode.Sampling(config.sampling.temperature, config.sampling.top_p)
    return config.decoding.engine(read(), drawn, answers, style=config.prompt_style)


# --- a chat endpoint --------------------------------------------------------------------------------------------------


def _sample_endpoint(config: Config, asked: Sequence[tuple[Problem, str]]) -> Result:
    where, kept_in, how = config.endpoint, endpoint.replies_of(config.out), config.sampling
    settings: dict[str, Any] = {
        "temperature": how.temperature,
        "top_p": how.top_p,
        "max_new_tokens": config.decoding.max_new_tokens,
    }
    if how.seed is not None:
        settings["seed"] = how.seed
    wanted = functools.partial(_wanted, config.model, settings, config.prompt_style)
    if config.dry_run:
        most = range(how.max_samples or how.samples)
        estimate = where.estimate((_request(wanted(*one, number)) for one in asked for number in most), kept_in)
        if how.max_samples:
            estimate = f"if every attempt fails:\n{estimate}"
        print(estimate)
        return Result(Path(config.out), estimate=estimate)
    outcome = Outcome(0)
    with Appender(config.out, Attempt) as file, Appender(kept_in, Reply) as replies:

        def answer(these: Sequence[_Wanted]) -> None:
            nonlocal outcome
            requests = list(map(_request, these))
            outcome += answering.answer(where, requests, file, replies, _attempt, ask=not outcome.stopped)

        result = _finish(config, file, _rounds(how, asked, wanted, file, answer))
        outcome.require_all()
    return result


def _request(one: _Wanted) -> Request:
    return chat.request(
        one.prompt,
        model=one.student,
        max_tokens=one.sampling["max_new_tokens"],
        temperature=one.sampling["temperature"],
        top_p=one.sampling["top_p"],
        seed=int(one.id[:8], 16) if "seed" in one.sampling else None,
        sample=one.sampling["sample"],
        about=one,
    )


def _attempt(request: Request, reply: Reply) -> Attempt:
    """The attempt in a reply."""
    one = request.about
    text, answer, verdict = answering.graded(one.problem, reply, one.style)
    tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
    return one.row(text=text, answer=answer, verdict=verdict, **tokens)


command = cli.Command("sample", __doc__, Config, run)
if __name__ == "__main__":
    command.main()
