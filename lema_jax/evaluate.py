"""Greedy answers of models to tasks' questions: reads model folders, writes predictions.jsonl and summary.json.

    python -m lema_jax.evaluate --checkpoint=runs/lema --task=gsm8k --split=test --out=runs/lema/gsm8k_test
    python -m lema_jax.evaluate --checkpoint=runs/cot,runs/lema@200 --task=gsm8k,svamp --out=runs/tests
    python -m lema_jax.evaluate --checkpoint=runs/cot,runs/lema --score=attempts.jsonl --out=runs/scores
    python -m lema_jax.evaluate --checkpoint=runs/lema --prompt="Question: What is 6 times 7?"

One checkpoint and one task go into --out itself; several, into --out/<checkpoint>/<task>_<split>. A folder brings its
architecture and tokenizer, and for adapters its base; `folder@200` is its step 200, `folder@best` the one that did
best on dev while it was trained. With --harness each folder also gets the files that lm-evaluation-harness writes. With
--score the right and wrong attempts of a file of `sample` are scored instead (scores.jsonl), which tells ΔPPL: how much
likelier a checkpoint finds right paths than wrong ones. With --prompt one text is answered, as it is made, onto the
terminal (with --prompt_style=chat by the model's template); nothing is written.

--weights=int8 or nf4 holds the layers' kernels in fewer bits, --cache=int8 the keys and values of what was read; both
change answers a little (tests/benchmarks/bench_precision.py measures by how much).

--prompt_style says how questions are asked: `paper`, zero-shot as LLaMAs trained here are; `wizardmath`, as the authors
asked WizardMath; `few_shot`, after worked examples, for base models; `chat`, by the template of an instruct model.

Every row is on the disk before it counts; the same command run again answers only what is missing. Several processes
(a TPU pod; see `parallel.job`) share the weights and the rows under way, and the first one writes.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lema_jax import checkpoint, cli, records, storage, tasks
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.evidence import harness, perplexity, stats, table
from lema_jax.generation import score, student
from lema_jax.generation.engine import Engine
from lema_jax.generation.student import Asked, Student
from lema_jax.model.config import CACHES, KERNELS
from lema_jax.model.decode import Sampling
from lema_jax.parallel import job
from lema_jax.records import Appender, Attempt, PathScore, Prediction, Problem, Verdict, row_id
from lema_jax.tasks import prompts

_CHECKPOINT = cli.define_paths("checkpoint", None, "Model folders of convert or train; folder@step.", required=True)
_STEP = flags.DEFINE_integer("step", None, "The step of folders that name none; the last when left out.", 0)
_TASK = cli.define_paths("task", [], "The benchmarks; see lema_jax/tasks.")
_SPLIT = flags.DEFINE_list("split", ["test"], "Their split, or one for each task.")
_SCORE = flags.DEFINE_string("score", None, "An attempts file to score instead of answering tasks.")
_PROMPT = flags.DEFINE_string("prompt", None, "One text to answer on the terminal instead.")
_PROMPT_STYLE = flags.DEFINE_enum("prompt_style", "paper", prompts.STYLES, "How questions are asked; see above.")
_EXAMPLES = flags.DEFINE_string("examples", None, "Worked examples for few_shot: a text file, in place of our own.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the publishers' files lie; else the variable LEMA_DATA.")
_LIMIT = flags.DEFINE_integer("limit", None, "Only the first questions of a split (or attempts).", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "Folder for what is written; needed with --task and --score.")
_HARNESS = flags.DEFINE_bool("harness", False, "Also write results and samples as lm-evaluation-harness does.")
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 2048, "Tokens of an answer (2,048 in the paper).", 1, 2**20)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Answers under way at a time.", 1, 2**16)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of weights and activations.")
_WEIGHTS = flags.DEFINE_enum(
    "weights", None, KERNELS, "What kernels are held as; dense, or what adapters were trained upon, when left out."
)
_CACHE = flags.DEFINE_enum("cache", "dense", CACHES, "What keys and values are held as.")
_FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that the weights are cut over along the model width.", lower_bound=1)
_TENSOR = flags.DEFINE_integer("tensor", 1, "Devices that heads and feed-forward width are cut over.", lower_bound=1)

_GLANCE = 4  # tokens between two prints of --prompt


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
    """A step of a model folder.

    `name`: what its results are filed under. `model`: what they are of. `prompt`: how it is asked.
    """

    folder: str
    step: int
    name: str
    model: str
    prompt: Callable[[Problem], str]


@dataclasses.dataclass(frozen=True)
class _Test:
    """A split of a task: what is asked."""

    name: str
    task: tasks.Task
    problems: list[Problem]


def main(argv: Sequence[str]) -> None:
    """Checks all that is asked for, then answers, or scores, checkpoint by checkpoint."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; lists are separated by commas, without spaces")
    with job.one_voice():
        _evaluate()


def _evaluate() -> None:
    if [bool(_TASK.value), bool(_SCORE.value), _PROMPT.value is not None].count(True) != 1:
        raise UserError("give one of --task=name,name, --score=attempts.jsonl and --prompt=text")
    for flag in (_PROMPT_STYLE, _EXAMPLES):
        if _SCORE.value and flag.present:
            raise UserError(f"--{flag.name} is for --task; the attempts of --score have their prompts")
    if _PROMPT.value is not None and (_PROMPT_STYLE.value not in ("paper", "chat") or _EXAMPLES.present):
        raise UserError("--prompt is asked as it stands, or with --prompt_style=chat; the other styles are for --task")
    checkpoints = [_checkpoint(given) for given in _CHECKPOINT.value]
    _distinct("--checkpoint", [one.name for one in checkpoints])
    if _PROMPT.value is not None:
        for one in checkpoints:
            _say(one, _PROMPT.value, titled=len(checkpoints) > 1)
        return
    if _OUT.value is None:
        raise UserError("--out says in which folder to write; give one")
    out = storage.on_disk(_OUT.value)
    if _SCORE.value:
        attempts = _attempts(_SCORE.value)
        for one in checkpoints:
            _score(one, attempts, out / one.name if len(checkpoints) > 1 else out)
    else:
        tests = _tests()
        several = len(checkpoints) * len(tests) > 1
        for one in checkpoints:
            # held for all tasks of the checkpoint, let go before the next one's weights are read
            read = functools.cache(functools.partial(_read, one))
            for test in tests:
                _answer(one, test, out / one.name / test.name if several else out, read)


def _checkpoint(given: str) -> _Checkpoint:
    folder, _, which = given.rpartition("@")
    if not folder or not (which.isdecimal() or which == "best") or storage.place(given).exists():
        folder, which = given, ""
    lies = storage.place(folder) if storage.is_remote(folder) else Path(folder).resolve()
    name = lies.name + (f"@{which}" if which else "")
    checkpoint.read_card(folder)  # no model folder at all is said first
    step = int(which) if which.isdecimal() else _STEP.value
    if which == "best":
        step = checkpoint.best_step(folder)
    elif step is None:
        step = checkpoint.latest_step(folder)
    elif step not in checkpoint.steps(folder):
        raise UserError(f"{folder} has no checkpoint at step {step}; it has {checkpoint.steps(folder)}")
    as_chat = functools.partial(tokenizer.as_chat, tokenizer=tokenizer.load(folder))
    prompt = prompts.style(_PROMPT_STYLE.value, _EXAMPLES.value, as_chat)
    return _Checkpoint(folder, step, name, checkpoint.identity(folder, step), prompt)


def _read(one: _Checkpoint) -> Student:
    mesh = {"fsdp": _FSDP.value, "tensor": _TENSOR.value}
    return student.read(one.folder, one.step, _DTYPE.value, weights=_WEIGHTS.value, **mesh)


def _engine(loaded: Student, rows: int, **how: Any) -> Engine:
    shared = {"max_new_tokens": _MAX_NEW_TOKENS.value, "cache": _CACHE.value}
    return student.engine(loaded, rows=rows, sampling=Sampling(), **shared, **how)


def _precision() -> dict[str, str]:
    """What numbers are held as, where it is not as the model has them."""
    found = {"dtype": _DTYPE.value}
    if _WEIGHTS.value:
        found["weights"] = _WEIGHTS.value
    if _CACHE.value != "dense":
        found["cache"] = _CACHE.value
    return found


def _tests() -> list[_Test]:
    splits = _SPLIT.value * len(_TASK.value) if len(_SPLIT.value) == 1 else _SPLIT.value
    if len(splits) != len(_TASK.value):
        raise UserError(f"--split has {len(splits)} splits for {len(_TASK.value)} tasks; give one, or one for each")
    data_dir = Path(_DATA_DIR.value) if _DATA_DIR.value else None
    tests = []
    for name, split in zip(_TASK.value, splits):
        task = tasks.get(name)
        problems = task.load(split, data_dir)[: _LIMIT.value]
        tests.append(_Test(f"{Path(name.removeprefix('jsonl:')).stem}_{split}", task, problems))
        print(f"{name}/{split}: {table.before_a_run(len(problems))}")
    _distinct("--task", [test.name for test in tests])
    return tests


def _distinct(flag: str, names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UserError(f"{flag} has two of the name {twice[0]}, which would share a folder; evaluate them one by one")


def _answer(one: _Checkpoint, test: _Test, out: Path, read: Callable[[], Student]) -> None:
    """Answers what is missing, then writes predictions in the questions' order, and their summary."""
    shaping = {"model": one.model, "max_new_tokens": _MAX_NEW_TOKENS.value, **_precision()}
    asked = [
        Asked(row_id(problem=problem.id, prompt=prompt, **shaping), problem, prompt)
        for problem, prompt in ((problem, one.prompt(problem)) for problem in test.problems)
    ]

    def engine(answers: int) -> Engine:
        return _engine(read(), min(_BATCH_SIZE.value, answers), stop=prompts.stop(_PROMPT_STYLE.value))

    def row(*, problem: Problem, text: str, **fields: Any) -> Prediction:
        paper = test.task.paper(text, problem)
        made = {"checkpoint": one.model, "prompt_style": _PROMPT_STYLE.value}
        return Prediction(problem=problem, text=text, paper=paper, **made, **fields)

    predictions = job.written_by_the_first(out / "predictions.jsonl")
    with predictions as path, Appender(path, Prediction) as file:
        if strangers := file.rows.keys() - {one.id for one in asked}:
            other = file.rows[min(strangers)]
            raise UserError(
                f"{file.path} holds answers to something else (model {other.checkpoint}, question {other.problem.id}): "
                "another model, step, task, limit, prompt or setting; choose another --out, or remove the file"
            )
        rows = student.answer(asked, file, engine, row)
        records.write(path, rows)
        summary = stats.summarize(rows)
        _write(path.with_name("summary.json"), one.model, test, summary)
        if _HARNESS.value:
            harness.write(path.parent, rows)
    print(f"{one.name} on {test.name}: {table.result(summary)}")


def _say(one: _Checkpoint, prompt: str, titled: bool) -> None:
    """Prints a checkpoint's answer as it is made; in the style `chat` to the text as a user's message."""
    if _PROMPT_STYLE.value == "chat":
        prompt = tokenizer.as_chat(prompt, tokenizer=tokenizer.load(one.folder))
    alone = _engine(_read(one), 1, block=_GLANCE)
    if titled:
        print(f"--- {one.name}")
    for piece in alone.stream(prompt):
        print(piece, end="", flush=True)
    print()


def _write(path: Path, model: str, test: _Test, summary: stats.Summary) -> None:
    what = {"checkpoint": model, "task": test.problems[0].task, "split": test.problems[0].split}
    what |= {"prompt_style": _PROMPT_STYLE.value, **_precision()}
    storage.write(path, json.dumps(what | dataclasses.asdict(summary), indent=2) + "\n")


def _attempts(path: str) -> list[Attempt]:
    """Those that are right or wrong: an attempt without an answer is neither."""
    told = [one for one in records.read(path, Attempt) if one.verdict in (Verdict.RIGHT, Verdict.WRONG)]
    if not told:
        raise UserError(f"{path} has no right or wrong attempts to score")
    return told[: _LIMIT.value]


def _score(one: _Checkpoint, attempts: Sequence[Attempt], out: Path) -> None:
    """Scores what is missing, writes scores in the attempts' order, and says ΔPPL."""
    ids = {row_id(model=one.model, attempt=attempt.id, **_precision()): attempt for attempt in attempts}
    with job.written_by_the_first(out / "scores.jsonl") as path, Appender(path, PathScore) as file:
        if strangers := file.rows.keys() - ids.keys():
            other = file.rows[min(strangers)]
            raise UserError(
                f"{file.path} holds scores of something else (model {other.checkpoint}, question {other.problem_id}): "
                "another model, step, attempts or limit; choose another --out, or remove the file"
            )
        missing = [name for name in ids if name not in file.rows]
        if missing:
            loaded = _read(one)
            pairs = [(ids[name].prompt, ids[name].text) for name in missing]
            for done in score.score(loaded, pairs, rows=_BATCH_SIZE.value):
                name = missing[done.index]
                if done.nll is not None:
                    file.append(_path_score(name, ids[name], one.model, done.nll, done.tokens))
        scores = [file.rows[name] for name in ids if name in file.rows]
        records.write(path, scores)
    if unread := len(ids) - len(scores):
        print(f"{one.name}: {unread} attempts are empty or longer than the model's context; left out")
    print(perplexity.sentence(perplexity.delta_ppl(scores), one.name))


def _path_score(name: str, attempt: Attempt, model: str, nll: float, tokens: int) -> PathScore:
    right = attempt.verdict is Verdict.RIGHT
    return PathScore(id=name, problem_id=attempt.problem.id, checkpoint=model, right=right, nll=nll, tokens=tokens)


if __name__ == "__main__":
    cli.run(main, out=lambda: _OUT.value, first=lambda: job.join(heeds_notice=False))
