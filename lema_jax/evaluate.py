"""Answers of models to tasks' questions, graded: greedy ones, or several samples a question.

Reads   model folders of `convert` or `train` (--checkpoint). A folder brings its architecture and tokenizer, and for
        adapters its base; `folder@200` is its step 200, `folder@best` the step that did best on dev in training. Or
        asks a served model, at any OpenAI-compatible endpoint (--model).
Writes  predictions.jsonl and summary.json: one checkpoint and one task into --out itself, several into
        --out/<checkpoint>/<task>_<split>. With --harness also the files that lm-evaluation-harness writes.

  python -m lema_jax.evaluate --checkpoint=runs/lema --task=gsm8k --split=test --out=runs/lema/gsm8k_test
  python -m lema_jax.evaluate --checkpoint=runs/cot,runs/lema@200 --task=gsm8k,svamp --out=runs/tests
  python -m lema_jax.evaluate --checkpoint=runs/lema --task=gsm8k --samples=8 --temperature=0.7 --out=runs/lema/sampled
  python -m lema_jax.evaluate --model=NAME --base_url=http://localhost:8000/v1 --prompt_style=chat --task=gsm8k \\
      --out=runs/served
  python -m lema_jax.evaluate --checkpoint=runs/cot,runs/lema --score=attempts.jsonl --out=runs/scores
  python -m lema_jax.evaluate --checkpoint=runs/lema --prompt="Question: What is 6 times 7?"

With --score the right and wrong attempts of a file of `sample` are scored instead (scores.jsonl), which gives ΔPPL: how
much likelier a checkpoint finds right paths than wrong ones. With --prompt one text is answered on the terminal, as the
answer is made (with --prompt_style=chat by the model's template); nothing is written.

--prompt_style is how questions are asked: `paper`, zero-shot as the model was trained, which is `plain` or, for one
that learnt from tagged right and wrong solutions (arm negatives), `tagged`; `wizardmath`, as the authors asked
WizardMath; `few_shot`, after worked examples, for base models; `chat`, by the template of an instruct model.

With --samples=k and a --temperature, accuracy is the mean over k samples (avg@k), beside pass@k and maj@k; a prompt is
read once for its samples. What a sample draws depends on its question, settings, --seed and number alone, so other
batches, a restart or a larger k draw the same. --errata mends or leaves out questions whose gold was found wrong.

--weights=int8 or nf4 quantises the layers' kernels, --cache=int8 the cached keys and values; both change answers a
little (tests/benchmarks/bench_precision.py measures by how much).

Every row is on the disk before it counts; the same command run again answers only what is missing. Several processes
(a TPU pod; see `parallel.job`) share the weights and the rows in flight, and the first one writes.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lema_jax import cli, records, stage, storage, tasks
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.evidence import harness, perplexity, table
from lema_jax.evidence.perplexity import DeltaPpl
from lema_jax.evidence.summary import Summary, summarize
from lema_jax.generation import models, path_scores, student
from lema_jax.generation.decoding import Decoding
from lema_jax.generation.engine import Engine
from lema_jax.generation.models import Model
from lema_jax.generation.samples import Samples
from lema_jax.generation.student import Asked, Student
from lema_jax.parallel import job
from lema_jax.parallel.job import Job
from lema_jax.records import Appender, Attempt, PathScore, Prediction, Problem, row_id
from lema_jax.stage import group, option
from lema_jax.tasks import errata, prompts
from lema_jax.teacher import answering, chat, endpoint
from lema_jax.teacher.chat import Request
from lema_jax.teacher.endpoint import Endpoint

_STREAMED = 4  # tokens between two prints of --prompt
_QUESTIONS = {"split", "data_dir", "errata", "harness"}
_OF_TASKS = {  # options that have no meaning with --score or --prompt
    "score": _QUESTIONS
    | {"prompt_style", "examples", "max_new_tokens", "cache", "fixed_shapes", *stage.names(Samples)},
    "prompt": _QUESTIONS | {"limit", "out"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` evaluates: checkpoints or a served model, and one of `task`, `score` and `prompt`."""

    checkpoint: Sequence[Path | str] = option(
        (),
        "Model folders of convert or train, separated by commas; FOLDER@STEP or FOLDER@best is one of its steps.",
        paths=True,
    )
    model: str = option("", "Served model to ask instead, by the name that the endpoint knows it by.")
    step: int | None = option(None, "Step of the folders that name none; the last by default.", low=0)
    task: Sequence[str] = option(
        (), f"Tasks to answer, separated by commas: {tasks.LISTED}.", paths=True, repeats=True
    )  # twice, with two splits
    split: Sequence[str] = option(("test",), "Split of all tasks, or one for each, separated by commas.")
    score: Path | str | None = option(None, "File of attempts to score instead of answering tasks.")
    prompt: str | None = option(None, "One text to answer on the terminal instead of tasks.")
    prompt_style: str = option(
        "paper",
        "How questions are asked: zero-shot as the model was trained (paper), by the paper's prompt alone (plain) or "
        "under a tag that asks for a right solution (tagged), as WizardMath's authors ask it, after worked examples, "
        "or by the model's chat template.",
        choices=prompts.STYLES,
    )
    examples: Path | str | None = option(
        None, "Text file of worked examples for --prompt_style=few_shot; the package's own by default."
    )
    data_dir: Path | str | None = option(None, "Folder with the publishers' files; by default the variable LEMA_DATA.")
    errata: str | None = option(None, errata.HELP)
    limit: int | None = option(None, "Only the first so many questions of a split, or attempts of --score.", low=1)
    out: Path | str | None = option(None, "Folder to write to; required with --task and --score.")
    harness: bool = option(False, "Also write results and samples in the form of lm-evaluation-harness.")
    dry_run: bool = option(False, "Ask nothing; print what an endpoint would be asked and what it would cost.")
    samples: Samples = group(Samples)
    decoding: Decoding = group(Decoding)
    endpoint: Endpoint = group(Endpoint)
    job: Job = group(Job)

    def problems(self) -> list[str]:
        return [*self._of_another_model(), *self._contradictions()]

    def writes(self) -> Path | str | None:
        return self.out if self.prompt is None and not self.dry_run else None

    def join(self) -> bool:
        return bool(self.model) or job.join(self.job, preemptible=False)

    def _of_another_model(self) -> list[str]:
        of_checkpoint = {"checkpoint", "step", "score", "prompt", "harness", *stage.names(Decoding)} - {
            "max_new_tokens"
        }
        strange = of_checkpoint if self.model else {"dry_run", *stage.names(Endpoint)}
        whose = "a served --model" if self.model else "a --checkpoint"
        return [f"--{name} is not for {whose}; leave it out" for name in sorted(strange & set(stage.changed(self)))]

    def _contradictions(self) -> Iterator[str]:
        if [bool(self.task), bool(self.score), self.prompt is not None].count(True) != 1:
            yield "give one of --task=name,name, --score=attempts.jsonl and --prompt=text"
            return
        if not self.checkpoint and not self.model:
            yield "--checkpoint names no model folder; give one that convert or train made, or a served --model"
        if self.prompt is None and self.out is None:
            yield "--out is missing: the folder to write to; give one"
        for given, names in _OF_TASKS.items():
            if getattr(self, given) is not None:
                for name in sorted(names.intersection(stage.changed(self))):
                    yield f"--{name} is not for --{given}; leave it out"
        if self.prompt is not None and (self.prompt_style not in ("paper", "chat") or self.examples is not None):
            yield "--prompt is asked as it stands, or with --prompt_style=chat; the other styles are for --task"
        how = self.samples
        yield from how.problems()
        if how.samples > 1 and (self.harness or self.prompt is not None):
            yield f"--samples={how.samples} is of --task, without --harness; its files have one answer a question"
        if self.task and len(self.split) not in (1, len(self.task)):
            yield f"--split has {len(self.split)} splits for {len(self.task)} tasks; give one, or one for each"


@dataclasses.dataclass(frozen=True)
class Answered:
    """A checkpoint's answers to one test: `folder` has predictions.jsonl and summary.json."""

    checkpoint: str
    test: str
    folder: Path
    summary: Summary


@dataclasses.dataclass(frozen=True)
class Scored:
    """A checkpoint's scores of a file of attempts: `folder` has scores.jsonl. `unread`: attempts that have no score."""

    checkpoint: str
    folder: Path
    scores: int
    unread: int
    delta_ppl: DeltaPpl


@dataclasses.dataclass(frozen=True)
class Result:
    """What was evaluated, one entry a checkpoint, and with --task one a test: `answered` with --task, `scored` with
    --score, `texts` of the answers with --prompt. A checkpoint goes by its folder's name, with the `@step` given."""

    answered: tuple[Answered, ...] = ()
    scored: tuple[Scored, ...] = ()
    texts: tuple[str, ...] = ()


@stage.function
def run(config: Config) -> Result:
    """Checks all that is asked for, then answers or scores, checkpoint by checkpoint.

    Raises:
      UserError: a config that contradicts itself; a model folder, task or file that cannot be read; two checkpoints or
        tests that would share a folder; a folder that holds the results of something else; weights or a cache that the
        devices do not hold.
    """
    with job.printed_once():
        asked = (config.prompt_style, config.examples)
        checkpoints = [models.of_folder(os.fspath(given), config.step, *asked) for given in config.checkpoint]
        if config.model:
            checkpoints = [models.served(config.model, *asked)]
        _require_distinct("--checkpoint", [one.name for one in checkpoints])
        if config.prompt is not None:
            return Result(texts=tuple(_stream(config, one, config.prompt) for one in checkpoints))
        assert config.out is not None  # by the config's rules
        out = storage.on_disk(config.out)
        if config.score:
            attempts = path_scores.read_attempts(config.score, config.limit)
            folders = {one.name: out / one.name if len(checkpoints) > 1 else out for one in checkpoints}
            return Result(scored=tuple(_score(config, one, attempts, folders[one.name]) for one in checkpoints))
        tests = _tests(config)
        several = len(checkpoints) * len(tests) > 1
        place = lambda one, test: out / one.name / test.name if several else out
        pairs = list(itertools.product(checkpoints, tests))
        if config.dry_run:
            for one, test in pairs:
                print(_estimate(config, one, test, place(one, test)))
            return Result()
        for one, test in pairs:  # what is refused is refused before the first answer
            with _predictions(_wanted(config, one, test), place(one, test)):
                pass
        answered = []
        for one in checkpoints:
            # The tests of a checkpoint share its weights, which are freed before the next one's are read.
            read = functools.cache(functools.partial(config.decoding.read, one.folder, one.step))
            answered += [_answer(config, one, test, place(one, test), read) for test in tests]
        return Result(answered=tuple(answered))


# --- tests ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Test:
    """The questions of a task's split, and the name of the folder of their answers."""

    name: str
    task: tasks.Task
    problems: list[Problem]


def _tests(config: Config) -> list[_Test]:
    splits = list(config.split) * len(config.task) if len(config.split) == 1 else config.split
    data_dir = Path(config.data_dir) if config.data_dir else None
    tests = []
    for name, split in zip(config.task, splits):
        task = tasks.get(name)
        problems = task.load(split, data_dir)
        if config.errata:
            mended = errata.mend(problems, config.errata, data_dir)
            print(f"{name}/{split}: {mended}")
            problems = mended.problems
        problems = problems[: config.limit]
        tests.append(_Test(f"{Path(name.removeprefix('jsonl:')).stem}_{split}", task, problems))
        print(f"{name}/{split}: {table.before_a_run(problems)}")
    _require_distinct("--task", [test.name for test in tests])
    return tests


def _require_distinct(flag: str, names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UserError(f"{flag} has two of the name {twice[0]}, which would share a folder; evaluate them one by one")


# --- answers, scores, one prompt --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Wanted(Asked):
    """A wanted answer, and which sample of its question it is."""

    sample: int


def _wanted(config: Config, one: Model, test: _Test) -> list[_Wanted]:
    """The answers to a test, question by question."""
    how, decoding = config.samples, config.decoding
    shaping: dict[str, Any] = {"model": one.identity, "max_new_tokens": decoding.max_new_tokens}
    if not config.model:
        shaping |= decoding.precision()
        if config.prompt_style == "chat":
            shaping["rendered"] = True  # prompts are a template's, which writes all special tokens: encode.prompt_ids
    shaping |= how.shaping(seeded=not config.model)
    wanted = []
    for problem in test.problems:
        prompt = one.prompt(problem)
        graded = {"gold": problem.gold, "choices": problem.choices}  # a task's file may be changed, and keep its ids
        for number in range(how.samples):
            which = {"sample": number} if how.temperature else {}
            id = row_id(problem=problem.id, prompt=prompt, **graded, **shaping, **which)
            wanted.append(_Wanted(id, problem, prompt, number))
    return wanted


@contextlib.contextmanager
def _predictions(wanted: Sequence[_Wanted], out: Path) -> Iterator[Appender[Prediction]]:
    """The file of a test's answers; one that holds others is refused."""
    with job.written_by_the_first(out / "predictions.jsonl") as path, Appender(path, Prediction) as file:
        if strangers := file.rows.keys() - {asked.id for asked in wanted}:
            other = file.rows[min(strangers)]
            raise UserError(
                f"{file.path} holds answers to something else (model {other.checkpoint}, question {other.problem.id}): "
                "another model, step, task, gold, limit, prompt or setting; choose another --out, or remove the file"
            )
        yield file


def _answer(config: Config, one: Model, test: _Test, out: Path, read: Callable[[], Student]) -> Answered:
    """Answers what is missing, then writes predictions in the questions' order, and their summary."""
    style, wanted = one.style, _wanted(config, one, test)
    numbers = {asked.id: asked.sample for asked in wanted}

    def engine(answers: int) -> Engine:
        return config.decoding.engine(read(), config.samples.drawn(), answers, style=style)

    def row(*, id: str, problem: Problem, text: str, **fields: Any) -> Prediction:
        made = {"checkpoint": one.identity, "prompt_style": style, "paper": test.task.official_grader(text, problem)}
        return Prediction(id=id, problem=problem, sample=numbers[id], text=text, **made, **fields)

    with _predictions(wanted, out) as file:
        if config.model:
            requests = [_request(config, one) for one in wanted]
            rows = answering.answers(config.endpoint, requests, file, row, style=style)
        else:
            student.answer(wanted, file, engine, row)
            rows = [file.rows[one.id] for one in wanted]
        # An earlier run may have called the same file, or a style with the same prompts, by another name.
        named = [{"problem": one.problem, "prompt_style": style} for one in wanted]
        rows = [row.model_copy(update=names) for row, names in zip(rows, named)]
        records.write(file.path, rows)
        summary = summarize(rows)
        of = {"checkpoint": one.identity, "task": rows[0].problem.task, "split": rows[0].problem.split}
        of |= {"prompt_style": style, **({} if config.model else config.decoding.precision())}
        of |= config.samples.shaping(seeded=not config.model)
        written = json.dumps(of | dataclasses.asdict(summary), indent=2) + "\n"
        storage.write(file.path.with_name("summary.json"), written)
        if config.harness:
            harness.write(file.path.parent, rows)
    print(f"{one.name} on {test.name}: {table.result(summary)}")
    return Answered(one.name, test.name, out, summary)


def _request(config: Config, one: _Wanted) -> Request:
    how = config.samples
    return chat.request(
        one.prompt,
        model=config.model,
        max_tokens=config.decoding.max_new_tokens,
        temperature=how.temperature,
        top_p=how.top_p if how.temperature else None,
        seed=None if how.seed is None else int(one.id[:8], 16),
        sample=one.sample,
        about=one,
    )


def _estimate(config: Config, one: Model, test: _Test, out: Path) -> str:
    requests = (_request(config, asked) for asked in _wanted(config, one, test))
    estimate = config.endpoint.estimate(requests, endpoint.replies_of(out / "predictions.jsonl"))
    return f"{one.name} on {test.name}: {estimate}"


def _score(config: Config, one: Model, attempts: Sequence[Attempt], out: Path) -> Scored:
    """Scores what is missing, writes scores in the attempts' order, and prints ΔPPL."""
    how = config.decoding
    read = functools.partial(how.read, one.folder, one.step)
    with job.written_by_the_first(out / "scores.jsonl") as path, Appender(path, PathScore) as file:
        scores = path_scores.complete(
            attempts, file, read, model=one.identity, precision=how.precision(), rows=how.batch_size
        )
        records.write(path, scores)
    if unread := sum(score.nll is None for score in scores):
        print(f"{one.name}: {unread} attempts are empty or longer than the model's context; left out")
    delta_ppl = perplexity.delta_ppl(scores)
    print(perplexity.sentence(delta_ppl, one.name))
    return Scored(one.name, out, len(scores) - unread, unread, delta_ppl)


def _stream(config: Config, one: Model, prompt: str) -> str:
    """Prints a checkpoint's answer as it is made, and returns it; in the style `chat` the text is a user's message."""
    if config.prompt_style == "chat":
        prompt = tokenizer.as_chat(prompt, tokenizer=tokenizer.load(one.folder))
    loaded = config.decoding.read(one.folder, one.step)
    engine = config.decoding.engine(loaded, config.samples.drawn(), 1, style=config.prompt_style, block=_STREAMED)
    if len(config.checkpoint) > 1:
        print(f"--- {one.name}")
    parts = []
    for part in engine.stream(prompt, config.samples.seed or 0):
        print(part, end="", flush=True)
        parts.append(part)
    print()
    return "".join(parts)


command = cli.Command("evaluate", __doc__, Config, run)
if __name__ == "__main__":
    command.main()
