"""Greedy answers of models to tasks' questions, graded.

Reads   model folders of `convert` or `train` (--checkpoint). A folder brings its architecture and tokenizer, and for
        adapters its base; `folder@200` is its step 200, `folder@best` the step that did best on dev in training.
Writes  predictions.jsonl and summary.json: one checkpoint and one task into --out itself, several into
        --out/<checkpoint>/<task>_<split>. With --harness also the files that lm-evaluation-harness writes.

  python -m lema_jax.evaluate --checkpoint=runs/lema --task=gsm8k --split=test --out=runs/lema/gsm8k_test
  python -m lema_jax.evaluate --checkpoint=runs/cot,runs/lema@200 --task=gsm8k,svamp --out=runs/tests
  python -m lema_jax.evaluate --checkpoint=runs/cot,runs/lema --score=attempts.jsonl --out=runs/scores
  python -m lema_jax.evaluate --checkpoint=runs/lema --prompt="Question: What is 6 times 7?"

With --score the right and wrong attempts of a file of `sample` are scored instead (scores.jsonl), which gives ΔPPL: how
much likelier a checkpoint finds right paths than wrong ones. With --prompt one text is answered on the terminal, as the
answer is made (with --prompt_style=chat by the model's template); nothing is written.

--prompt_style is how questions are asked: `paper`, zero-shot as the model was trained, which is `plain` or, for one
that learnt from tagged right and wrong solutions (arm negatives), `tagged`; `wizardmath`, as the authors asked
WizardMath; `few_shot`, after worked examples, for base models; `chat`, by the template of an instruct model.

--weights=int8 or nf4 quantises the layers' kernels, --cache=int8 the cached keys and values; both change answers a
little (tests/benchmarks/bench_precision.py measures by how much).

Every row is on the disk before it counts; the same command run again answers only what is missing. Several processes
(a TPU pod; see `parallel.job`) share the weights and the rows in flight, and the first one writes.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lema_jax import checkpoint, cli, records, stage, storage, tasks
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.evidence import harness, perplexity, stats, table
from lema_jax.evidence.perplexity import DeltaPpl
from lema_jax.generation import path_scores, student
from lema_jax.generation.decoding import Decoding
from lema_jax.generation.engine import Engine
from lema_jax.generation.student import Asked, Student
from lema_jax.model.decode import Sampling
from lema_jax.parallel import job
from lema_jax.parallel.job import Job
from lema_jax.records import Appender, Attempt, PathScore, Prediction, Problem, row_id
from lema_jax.stage import group, option
from lema_jax.tasks import prompts

_STREAMED = 4  # tokens between two prints of --prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` evaluates: checkpoints, and one of `task`, `score` and `prompt`."""

    checkpoint: Sequence[Path | str] = option(
        help="Model folders of convert or train, separated by commas; FOLDER@STEP or FOLDER@best is one of its steps.",
        paths=True,
    )
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
    limit: int | None = option(None, "Only the first so many questions of a split, or attempts of --score.", low=1)
    out: Path | str | None = option(None, "Folder to write to; required with --task and --score.")
    harness: bool = option(False, "Also write results and samples in the form of lm-evaluation-harness.")
    decoding: Decoding = group(Decoding)
    job: Job = group(Job)

    def problems(self) -> list[str]:
        return list(self._contradictions())

    def writes(self) -> Path | str | None:
        return self.out if self.prompt is None else None

    def join(self) -> bool:
        return job.join(self.job, preemptible=False)

    def _contradictions(self) -> Iterator[str]:
        if [bool(self.task), bool(self.score), self.prompt is not None].count(True) != 1:
            yield "give one of --task=name,name, --score=attempts.jsonl and --prompt=text"
            return
        if not self.checkpoint:
            yield "--checkpoint names no model folder; give one that convert or train made"
        if self.prompt is None and self.out is None:
            yield "--out is missing: the folder to write to; give one"
        if self.score:
            for name in sorted({"prompt_style", "examples"}.intersection(stage.changed(self))):
                yield f"--{name} is for --task; the attempts of --score have their prompts"
        if self.prompt is not None and (self.prompt_style not in ("paper", "chat") or self.examples is not None):
            yield "--prompt is asked as it stands, or with --prompt_style=chat; the other styles are for --task"
        if self.task and len(self.split) not in (1, len(self.task)):
            yield f"--split has {len(self.split)} splits for {len(self.task)} tasks; give one, or one for each"


@dataclasses.dataclass(frozen=True)
class Answered:
    """A checkpoint's answers to one test: `folder` has predictions.jsonl and summary.json."""

    checkpoint: str
    test: str
    folder: Path
    summary: stats.Summary


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
        checkpoints = [_checkpoint(config, os.fspath(given)) for given in config.checkpoint]
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
        answered = []
        for one in checkpoints:
            # The tests of a checkpoint share its weights, which are freed before the next one's are read.
            read = functools.cache(functools.partial(config.decoding.read, one.folder, one.step))
            for test in tests:
                answered.append(_answer(config, one, test, out / one.name / test.name if several else out, read))
        return Result(answered=tuple(answered))


# --- checkpoints and tests --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
    """A step of a model folder.

    `name`: of the folder of its results. `model`: its identity in their rows. `style`: how it is asked. `prompt`: makes
    a question's prompt.
    """

    folder: str
    step: int
    name: str
    model: str
    style: str
    prompt: Callable[[Problem], str]


def _checkpoint(config: Config, given: str) -> _Checkpoint:
    folder, _, which = given.rpartition("@")
    if not folder or not (which.isdecimal() or which == "best") or storage.place(given).exists():
        folder, which = given, ""
    place = storage.place(folder) if storage.is_remote(folder) else Path(folder).resolve()
    name = place.name + (f"@{which}" if which else "")
    metadata = checkpoint.read_metadata(folder)  # first, so that what is no model folder is reported as such
    step = int(which) if which.isdecimal() else config.step
    if which == "best":
        step = checkpoint.best_step(folder)
    elif step is None:
        step = checkpoint.latest_step(folder)
    elif step not in checkpoint.steps(folder):
        raise UserError(f"{folder} has no checkpoint at step {step}; it has {checkpoint.steps(folder)}")
    as_chat = functools.partial(tokenizer.as_chat, tokenizer=tokenizer.load(folder))
    style = prompts.of_model(config.prompt_style, metadata.prompt_style)
    prompt = prompts.style(style, config.examples, as_chat)
    return _Checkpoint(folder, step, name, checkpoint.identity(folder, step), style, prompt)


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
        problems = task.load(split, data_dir)[: config.limit]
        tests.append(_Test(f"{Path(name.removeprefix('jsonl:')).stem}_{split}", task, problems))
        print(f"{name}/{split}: {table.before_a_run(len(problems))}")
    _require_distinct("--task", [test.name for test in tests])
    return tests


def _require_distinct(flag: str, names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UserError(f"{flag} has two of the name {twice[0]}, which would share a folder; evaluate them one by one")


# --- answers, scores, one prompt --------------------------------------------------------------------------------------


def _answer(config: Config, one: _Checkpoint, test: _Test, out: Path, read: Callable[[], Student]) -> Answered:
    """Answers what is missing, then writes predictions in the questions' order, and their summary."""
    style, precision = one.style, config.decoding.precision()
    shaping: dict[str, Any] = {"model": one.model, "max_new_tokens": config.decoding.max_new_tokens, **precision}
    if style == "chat":
        shaping["rendered"] = True  # prompts are a template's, which writes all special tokens: see encode.prompt_ids
    asked = []
    for problem in test.problems:
        prompt = one.prompt(problem)
        graded = {"gold": problem.gold, "choices": problem.choices}  # a task's file may be changed, and keep its ids
        asked.append(Asked(row_id(problem=problem.id, prompt=prompt, **graded, **shaping), problem, prompt))

    def engine(answers: int) -> Engine:
        return config.decoding.engine(read(), Sampling(), answers, style=style)

    def row(*, problem: Problem, text: str, **fields: Any) -> Prediction:
        made = {"checkpoint": one.model, "prompt_style": style, "paper": test.task.official_grader(text, problem)}
        return Prediction(problem=problem, text=text, **made, **fields)

    predictions = job.written_by_the_first(out / "predictions.jsonl")
    with predictions as path, Appender(path, Prediction) as file:
        if strangers := file.rows.keys() - {one.id for one in asked}:
            other = file.rows[min(strangers)]
            raise UserError(
                f"{file.path} holds answers to something else (model {other.checkpoint}, question {other.problem.id}): "
                "another model, step, task, gold, limit, prompt or setting; choose another --out, or remove the file"
            )
        rows = student.answer(asked, file, engine, row)
        records.write(path, rows)
        summary = stats.summarize(rows)
        of = {"checkpoint": one.model, "task": rows[0].problem.task, "split": rows[0].problem.split}
        of |= {"prompt_style": style, **precision}
        written = json.dumps(of | dataclasses.asdict(summary), indent=2) + "\n"
        storage.write(path.with_name("summary.json"), written)
        if config.harness:
            harness.write(path.parent, rows)
    print(f"{one.name} on {test.name}: {table.result(summary)}")
    return Answered(one.name, test.name, out, summary)


def _score(config: Config, one: _Checkpoint, attempts: Sequence[Attempt], out: Path) -> Scored:
    """Scores what is missing, writes scores in the attempts' order, and prints ΔPPL."""
    how = config.decoding
    read = functools.partial(how.read, one.folder, one.step)
    with job.written_by_the_first(out / "scores.jsonl") as path, Appender(path, PathScore) as file:
        scores = path_scores.complete(
            attempts, file, read, model=one.model, precision=how.precision(), rows=how.batch_size
        )
        records.write(path, scores)
    if unread := len(attempts) - len(scores):
        print(f"{one.name}: {unread} attempts are empty or longer than the model's context; left out")
    delta_ppl = perplexity.delta_ppl(scores)
    print(perplexity.sentence(delta_ppl, one.name))
    return Scored(one.name, out, len(scores), unread, delta_ppl)


def _stream(config: Config, one: _Checkpoint, prompt: str) -> str:
    """Prints a checkpoint's answer as it is made, and returns it; in the style `chat` the text is a user's message."""
    if config.prompt_style == "chat":
        prompt = tokenizer.as_chat(prompt, tokenizer=tokenizer.load(one.folder))
    loaded = config.decoding.read(one.folder, one.step)
    engine = config.decoding.engine(loaded, Sampling(), 1, style=config.prompt_style, block=_STREAMED)
    if len(config.checkpoint) > 1:
        print(f"--- {one.name}")
    parts = []
    for part in engine.stream(prompt):
        print(part, end="", flush=True)
        parts.append(part)
    print()
    return "".join(parts)


command = cli.Command("evaluate", __doc__, Config, run)
if __name__ == "__main__":
    command.main()
