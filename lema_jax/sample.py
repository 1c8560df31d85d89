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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lema_jax import cli, records, tasks
from lema_jax.data import curate
from lema_jax.errors import UserError
from lema_jax.model.config import CACHES, KERNELS
from lema_jax.parallel import job
from lema_jax.records import Appender, Attempt, Problem, Verdict, row_id
from lema_jax.tasks import prompts, published
from lema_jax.teacher import chat, endpoint
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.landing import Landing

if TYPE_CHECKING:
    from lema_jax.generation.engine import Engine

_STUDENT = flags.DEFINE_enum(
    "student",
    "checkpoint",
    ["checkpoint", "openai", *published.NAMES],
    "a model folder, a chat endpoint, or one whose wrong solutions are published",
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "a model folder of convert or train")
_STEP = flags.DEFINE_integer("step", None, "the step to sample from; the last when left out", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "a checkpoint's attempts under way at a time", 1, 2**16)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of a checkpoint's weights and activations")
_FSDP = flags.DEFINE_integer("fsdp", 1, "devices that a checkpoint is cut over along the model width", lower_bound=1)
_TENSOR = flags.DEFINE_integer("tensor", 1, "devices that its heads and feed-forward width are cut over", lower_bound=1)
_WEIGHTS = flags.DEFINE_enum("weights", None, KERNELS, "what a checkpoint's kernels are held as")
_CACHE = flags.DEFINE_enum("cache", "dense", CACHES, "what its keys and values are held as")
_OF_A_CHECKPOINT = (_CHECKPOINT, _STEP, _BATCH_SIZE, _DTYPE, _FSDP, _TENSOR, _WEIGHTS, _CACHE)
_MODEL = flags.DEFINE_string("model", "", "the chat endpoint's model")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "only say what an endpoint would be asked and what it would cost")
_ENDPOINT = endpoint.define_flags()

_TASK = flags.DEFINE_string("task", "", "whose questions; see lema_jax/tasks")
_SPLIT = flags.DEFINE_string("split", "train", "which of them")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the publishers' files lie; else the variable LEMA_DATA")
_PROBLEMS = flags.DEFINE_string("problems", None, "a file of problems, in place of --task")
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Ask only the first so many questions; of published attempts, those that have any.", lower_bound=1
)
_PROMPT_STYLE = flags.DEFINE_enum(
    "prompt_style", "paper", prompts.STYLES, "how questions are asked; see evaluate (chat: an endpoint's own way)"
)
_EXAMPLES = flags.DEFINE_string("examples", None, "worked examples for few_shot: a text file, in place of our own")

_SAMPLES = flags.DEFINE_integer("samples", 1, "attempts at each question", 1, 10**5)
_DIFFICULTY_WEIGHTED = flags.DEFINE_bool(
    "difficulty_weighted", False, "then more at a question, up to --max_samples, the more of those have failed"
)
_MAX_SAMPLES = flags.DEFINE_integer("max_samples", None, "attempts at a question that failed each time", 2, 10**5)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "of sampling", 0, 100)
_TOP_P = flags.DEFINE_float("top_p", 1.0, "nucleus that is sampled from", lower_bound=0, upper_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of sampling; an endpoint is sent one only when it is given", 0)
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 512, "tokens of an attempt", 1, 2**20)
_OUT = flags.DEFINE_string("out", None, "the attempts file to write or to go on with", required=True)
_SELECTED = {"cot_augment": Verdict.RIGHT, "mistakes": Verdict.WRONG}
_MODE = flags.DEFINE_enum("mode", "all", ["all", *_SELECTED], "also write a file of the right ones, or of the mistakes")


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """An attempt that the file shall hold."""

    problem: Problem
    prompt: str
    student: str
    sampling: dict[str, Any]

    @functools.cached_property
    def id(self) -> str:
        return row_id(model=self.student, problem=self.problem.id, prompt=self.prompt, **self.sampling)

    def row(self, **fields: Any) -> Attempt:
        """The attempt that it became; fields: text, answer, verdict and the token counts."""
        shared = {"id": self.id, "problem": self.problem, "prompt": self.prompt}
        return _own_part(Attempt(**shared, student=self.student, sampling=self.sampling, **fields))


Answer = Callable[[Sequence[_Wanted]], object]  # answers what the file lacks, as far as it can


def main(argv: Sequence[str]) -> None:
    """Samples what is missing, counts the verdicts and writes the selection."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}")
    _check_flags()
    if _STUDENT.value in published.NAMES:
        _take_published(_problems())
        return
    prompt = prompts.style(_PROMPT_STYLE.value, _EXAMPLES.value, _as_chat())
    asked = [(problem, prompt(problem)) for problem in _problems()]
    if _STUDENT.value == "openai":
        _sample_endpoint(asked)
    else:
        _sample_checkpoint(asked)


def _first() -> bool:
    """Whether this process is the first of its job: several may share a checkpoint's work."""
    return _STUDENT.value != "checkpoint" or job.join(heeds_notice=False)


def _check_flags() -> None:
    of_endpoint = (_MODEL, _DRY_RUN)
    of_both = (
        _PROMPT_STYLE,
        _EXAMPLES,
        _SAMPLES,
        _DIFFICULTY_WEIGHTED,
        _MAX_SAMPLES,
        _TEMPERATURE,
        _TOP_P,
        _SEED,
        _MAX_NEW_TOKENS,
    )
    strange = {"checkpoint": of_endpoint, "openai": _OF_A_CHECKPOINT}
    for flag in strange.get(_STUDENT.value, (*_OF_A_CHECKPOINT, *of_endpoint, *of_both)):
        if flag.present:
            raise UserError(f"--{flag.name} is not for --student={_STUDENT.value}; leave it out, or choose another")
    needed = {"checkpoint": _CHECKPOINT, "openai": _MODEL}.get(_STUDENT.value)
    if needed is not None and not needed.value:
        raise UserError(f"--student={_STUDENT.value} needs --{needed.name}")
    if bool(_TASK.value) == bool(_PROBLEMS.value):
        raise UserError("give either --task or --problems: a task's questions, or a file of them")
    if _PROBLEMS.value and _SPLIT.present:
        raise UserError("--split is of --task; a file of --problems is taken whole")
    if _DIFFICULTY_WEIGHTED.value != (_MAX_SAMPLES.value is not None):
        raise UserError("--difficulty_weighted and --max_samples go together: give both or none")
    if _MAX_SAMPLES.value is not None and _MAX_SAMPLES.value <= _SAMPLES.value:
        raise UserError(f"--max_samples={_MAX_SAMPLES.value} must be above --samples={_SAMPLES.value}")
    if _TEMPERATURE.value == 0 and (_MAX_SAMPLES.value or _SAMPLES.value) > 1:
        raise UserError("several attempts at --temperature=0 would all be the same; raise it, or take one sample")


def _problems() -> list[Problem]:
    if _PROBLEMS.value:
        problems = list(records.read(_PROBLEMS.value, Problem))
        if not problems:
            raise UserError(f"{_PROBLEMS.value} holds no problem")
    else:
        data_dir = Path(_DATA_DIR.value) if _DATA_DIR.value else None
        problems = tasks.get(_TASK.value).load(_SPLIT.value, data_dir)
    # Of published attempts --limit counts questions that have any.
    return problems if _STUDENT.value in published.NAMES else problems[: _LIMIT.value]


def _as_chat() -> Callable[[str], str]:
    """What makes of a user's message what the student reads: an endpoint as it is, a checkpoint by its own template."""
    if _STUDENT.value == "openai" or _PROMPT_STYLE.value != "chat":
        return lambda message: message
    from lema_jax.data import tokenizer  # it loads transformers, which an endpoint's user need not wait for

    return functools.partial(tokenizer.as_chat, tokenizer=tokenizer.load(_CHECKPOINT.value))


def _wanted(
    asked: Iterable[tuple[Problem, str]], student: str, settings: dict[str, Any], numbers: Callable[[Problem], range]
) -> list[_Wanted]:
    return [
        _Wanted(problem, prompt, student, settings | {"sample": number})
        for problem, prompt in asked
        for number in numbers(problem)
    ]


def _rounds(
    asked: Sequence[tuple[Problem, str]],
    student: str,
    settings: dict[str, Any],
    file: Appender[Attempt],
    answer: Answer,
) -> list[str]:
    """Makes the attempts at every question, then more at those that the first ones failed; returns the ids wanted.

    The attempts grow linearly with the share that failed, from `samples` to `max_samples` (as DART-Math's, arXiv
    2407.13690, that are in proportion to difficulty). The draw repeats itself, so a rerun wants the same ones.
    """
    wanted = _wanted(asked, student, settings, lambda _: range(_SAMPLES.value))
    _require_same_golds(file, wanted)
    answer(wanted)
    ids = [one.id for one in wanted]
    if _MAX_SAMPLES.value is None:
        return ids
    rows = (file.rows[id] for id in ids if id in file.rows)
    failed = collections.Counter(row.problem.id for row in rows if row.verdict is not Verdict.RIGHT)
    more = _MAX_SAMPLES.value - _SAMPLES.value

    def numbers(problem: Problem) -> range:
        return range(_SAMPLES.value, _SAMPLES.value + -(-more * failed[problem.id] // _SAMPLES.value))

    wanted = _wanted(asked, student, settings, numbers)
    _require_same_golds(file, wanted)
    answer(wanted)
    return ids + [one.id for one in wanted]


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


def _own_part(row: Attempt) -> Attempt:
    """Without the further questions that a model of texts asks itself after worked examples, and answers."""
    for stop in prompts.stop(_PROMPT_STYLE.value):
        own, next_question, _ = row.text.partition(stop)
        if next_question:
            answer, verdict = tasks.grade(row.problem, own, truncated=False)
            row = row.model_copy(update={"text": own, "answer": answer, "verdict": verdict})
    return row


def _finish(file: Appender[Attempt], wanted: Iterable[str]) -> None:
    """Writes the rows in the order wanted, behind those of other commands, and the selection; counts the verdicts."""
    made = file.arrange(wanted)
    counts: collections.Counter[str] = collections.Counter()
    questions: set[str] = set()
    for row in map(file.rows.__getitem__, made):
        counts[row.verdict] += 1
        questions.add(row.problem.id)
    told = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.most_common())
    print(f"{file.path}: {len(made):,} attempts at {len(questions):,} questions: {told}")
    if _MODE.value != "all":
        path = file.path.with_suffix(f".{_MODE.value}.jsonl")
        written = records.write(path, _select(records.read(file.path, Attempt), _SELECTED[_MODE.value]))
        print(f"{path}: {written:,} of all {len(file.rows):,} attempts")


def _select(rows: Iterable[Attempt], verdict: Verdict) -> Iterator[Attempt]:
    """The rows of a verdict, each text of a question once, white space and case aside."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        text = (row.problem.id, curate.normal(row.text))
        if row.verdict is verdict and text not in seen:
            seen.add(text)
            yield row


def _take_published(problems: Sequence[Problem]) -> None:
    data_dir = Path(_DATA_DIR.value) if _DATA_DIR.value else None
    rows = published.attempts(_STUDENT.value, problems, data_dir, _LIMIT.value)
    with Appender(_OUT.value, Attempt) as file:
        _require_same_golds(file, rows)
        file.extend(row for row in rows if row.id not in file.rows)
        _finish(file, [row.id for row in rows])


# --- a checkpoint -----------------------------------------------------------------------------------------------------


def _sample_checkpoint(asked: Sequence[tuple[Problem, str]]) -> None:
    from lema_jax import checkpoint  # these load JAX, which an endpoint's user need not wait for
    from lema_jax.generation import student

    step = checkpoint.latest_step(_CHECKPOINT.value) if _STEP.value is None else _STEP.value
    settings = {
        "temperature": _TEMPERATURE.value,
        "top_p": _TOP_P.value,
        "seed": _SEED.value,
        "max_new_tokens": _MAX_NEW_TOKENS.value,
        "dtype": _DTYPE.value,
    }
    if _WEIGHTS.value:
        settings["weights"] = _WEIGHTS.value
    if _CACHE.value != "dense":
        settings["cache"] = _CACHE.value
    if _PROMPT_STYLE.value == "chat":
        settings["rendered"] = True  # prompts are a template's, which writes all special tokens: see encode.prompt_ids
    with job.one_voice(), job.written_by_the_first(_OUT.value) as path, Appender(path, Attempt) as file:

        def answer(wanted: Sequence[_Wanted]) -> object:
            by_id = {one.id: one for one in wanted}
            questions = [student.Asked(one.id, one.problem, one.prompt) for one in wanted]
            row = lambda *, id, problem, prompt, **fields: by_id[id].row(**fields)
            return student.answer(questions, file, functools.partial(_engine, step), row)

        _finish(file, _rounds(asked, checkpoint.identity(_CHECKPOINT.value, step), settings, file, answer))


def _engine(step: int, answers: int) -> "Engine":
    from lema_jax.generation import student
    from lema_jax.model.decode import Sampling

    mesh = {"fsdp": _FSDP.value, "tensor": _TENSOR.value}
    return student.engine(
        student.read(_CHECKPOINT.value, step, _DTYPE.value, weights=_WEIGHTS.value, **mesh),
        rows=min(_BATCH_SIZE.value, answers),
        sampling=Sampling(_TEMPERATURE.value, _TOP_P.value),
        stop=prompts.stop(_PROMPT_STYLE.value),
        max_new_tokens=_MAX_NEW_TOKENS.value,
        cache=_CACHE.value,
        rendered=_PROMPT_STYLE.value == "chat",
    )


# --- a chat endpoint --------------------------------------------------------------------------------------------------


def _sample_endpoint(asked: Sequence[tuple[Problem, str]]) -> None:
    where, kept_in, model = _ENDPOINT(), endpoint.replies_of(_OUT.value), _MODEL.value
    settings = {
        "temperature": _TEMPERATURE.value,
        "top_p": _TOP_P.value,
        "max_new_tokens": _MAX_NEW_TOKENS.value,
    }
    if _SEED.present:
        settings["seed"] = _SEED.value
    if _DRY_RUN.value:
        most = range(_MAX_SAMPLES.value or _SAMPLES.value)
        if _MAX_SAMPLES.value:
            print("if every attempt fails:")
        print(where.estimate(map(_request, _wanted(asked, model, settings, lambda _: most)), kept_in))
        return
    outcome = Outcome(0)
    with Appender(_OUT.value, Attempt) as file, Appender(kept_in, Reply) as replies:

        def answer(wanted: Sequence[_Wanted]) -> None:
            nonlocal outcome
            # An attempt whose reply is gone is not asked for again; one that has both counts as answered.
            asking = [one for one in wanted if one.id not in file.rows or _request(one).id in replies.rows]
            with Landing(file, functools.partial(_made, file)) as land:
                if not outcome.stopped:
                    is_right = lambda request, reply: land(request, reply).verdict is Verdict.RIGHT
                    outcome += where.ask(lambda: map(_request, asking), replies, is_right)
                for request in map(_request, asking):  # those that were not reached when it stopped
                    if reply := replies.rows.get(request.id):
                        land(request, reply)

        _finish(file, _rounds(asked, model, settings, file, answer))
        outcome.require_all()


def _request(one: _Wanted) -> Request:
    return chat.request(
        one.prompt,
        model=one.student,
        max_tokens=_MAX_NEW_TOKENS.value,
        temperature=_TEMPERATURE.value,
        top_p=_TOP_P.value,
        seed=int(one.id[:8], 16) if "seed" in one.sampling else None,
        sample=one.sampling["sample"],
        about=one,
    )


def _made(file: Appender[Attempt], request: Request, reply: Reply) -> Attempt:
    """The attempt in a reply, from the file where it stands there."""
    one = request.about
    return file.rows[one.id] if one.id in file.rows else _attempt(one, reply)


def _attempt(one: _Wanted, reply: Reply) -> Attempt:
    """The attempt in a reply; one that the endpoint cut off is TRUNCATED, one without an answer UNPARSED.

    A text that the endpoint itself does not call an answer is not graded.
    """
    failed = reply.failed
    if failed in ("", "empty", "length", "content_filter"):
        answer, verdict = tasks.grade(one.problem, reply.text, truncated=failed in ("length", "content_filter"))
    else:
        answer, verdict = None, Verdict.PROMPT_TOO_LONG if failed == "too_long" else Verdict.UNPARSED
    tokens = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
    return one.row(text=reply.text, answer=answer, verdict=verdict, **tokens)


if __name__ == "__main__":
    cli.run(main, out=lambda: None if _DRY_RUN.value else _OUT.value, first=_first)
