"""New questions for a student, evolved from those that it got wrong.

Reads   corrections that `correct` made (--seeds=random, the paper's control, draws from the training split instead).
Writes  a file of problems that `sample` takes: each a new question by a chat model, with the answer that most of three
        answers of the same model agree on. The replies are kept beside it (….replies.jsonl), so the same command run
        again asks only for what is missing; so are the questions that were left out, and why (….left_out.jsonl).

  python -m lema_jax.evolve --corrections=corrections.jsonl --count=10000 --out=evolved.jsonl --model=gpt-4o \\
      --max_cost_usd=20 [--base_url=http://localhost:8000/v1] [--dry_run]

A question is left out when the model gave none, when it only repeats its seed or another new one, when it gives away a
test question, and when all answers differ. The key of the endpoint is read from OPENAI_API_KEY.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from lema_jax import cli, records, tasks
from lema_jax.data import curate, gather
from lema_jax.errors import UserError
from lema_jax.records import Appender, Correction, Problem, row_id
from lema_jax.tasks import thinking
from lema_jax.teacher import chat, endpoint, evolution, prompting
from lema_jax.teacher.chat import Reply, Request

_CORRECTIONS = cli.define_paths("corrections", [], "files of correct")
_SEEDS = flags.DEFINE_enum("seeds", "corrections", ["corrections", "random"], "what questions the new ones come from")
_TASK = flags.DEFINE_string("task", "", "the task whose training split --seeds=random draws from")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "where the publishers' files lie; else the variable LEMA_DATA")
_COUNT = flags.DEFINE_integer("count", 10_000, "seeds to draw, with replacement", 1, 10**7)
_SEED = flags.DEFINE_integer("seed", 0, "of the draw", 0)
_OUT = flags.DEFINE_string("out", None, "the file of problems", required=True)
_MODEL = flags.DEFINE_string("model", None, "the chat model", required=True)
_TEMPERATURE = flags.DEFINE_float("temperature", None, "of the chat model; the endpoint's own if not given", 0, 100)
_TOP_P = flags.DEFINE_float("top_p", None, "of the chat model; the endpoint's own if not given", 0, 1)
_MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens", 1024, "the most tokens of a reply, those of hidden reasoning included", lower_bound=1
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "only say what would be asked and what it would cost")
_ENDPOINT = endpoint.define_flags()


@dataclasses.dataclass(frozen=True)
class _Evolved:
    """A new question and where it comes from."""

    id: str
    question: str
    seed: Problem


def main(argv: Sequence[str]) -> None:
    """Asks for the questions, then for answers to those that pass, and writes the problems whose answers agree."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}")
    if _TEMPERATURE.value == 0:
        raise UserError("--temperature=0 would give the same answer three times; raise it")
    seeds = evolution.draw_seeds(_seed_problems(), _COUNT.value, _SEED.value)
    where, kept_in = _ENDPOINT(), endpoint.replies_of(_OUT.value)
    if _DRY_RUN.value:
        print(f"questions: {where.estimate(_question_requests(seeds), kept_in)}")
        likely = [_Evolved(f"{number}", seed.question, seed) for number, seed in enumerate(seeds)]
        print(f"answers to all of them: {where.estimate(_answer_requests(likely), kept_in)}")
        return
    overlap = _overlap(seeds[0].task)  # before anything is paid for: its data may be missing
    left_out: list[evolution.LeftOut] = []
    with Appender(kept_in, Reply) as replies:
        outcome = where.ask(lambda: _question_requests(seeds), replies, lambda _, reply: bool(_question(reply)))
        questions = list(_new_questions(seeds, replies, overlap, left_out))
        if not outcome.stopped:
            outcome += where.ask(lambda: _answer_requests(questions), replies, _is_answered)
        problems = [problem for new in questions if (problem := _problem(new, replies, left_out))]
        if outcome.answered:
            _write(problems, left_out, len(seeds))
        outcome.require_all()


def _write(problems: Sequence[Problem], left_out: Sequence[evolution.LeftOut], seeds: int) -> None:
    records.write(_OUT.value, problems)
    print(f"{_OUT.value}: {len(problems):,} new problems from {seeds:,} seeds")
    for why, count in collections.Counter(row.why for row in left_out).items():
        print(f"  {count:7,} left out: {why}")
    if left_out:
        path = Path(_OUT.value).with_suffix(".left_out.jsonl")
        records.write(path, left_out)
        print(f"{path} lists the questions that were left out")


def _seed_problems() -> list[Problem]:
    """What seeds are drawn from; a question with several kept corrections is listed as often."""
    if _SEEDS.value == "random":
        if not _TASK.value:
            raise UserError("--seeds=random needs --task, whose training questions it draws from")
        problems = tasks.get(_TASK.value).load("train", Path(_DATA_DIR.value) if _DATA_DIR.value else None)
    else:
        if not _CORRECTIONS.value:
            raise UserError("--seeds=corrections needs --corrections, files of correct")
        rows = (row for path in _CORRECTIONS.value for row in records.read(path, Correction))
        problems = [row.attempt.problem for row in rows if not row.rejected]
        if not problems:
            raise UserError(f"no correction in {', '.join(_CORRECTIONS.value)} was kept; there is nothing to draw from")
    if len(named := {problem.task for problem in problems}) > 1:
        raise UserError(
            f"the corrections are of several tasks ({', '.join(sorted(named))}); evolve one after the other"
        )
    if problems[0].choices:
        raise UserError(f"the task {problems[0].task} asks to choose; new questions for it cannot be made")
    return problems


def _question_requests(seeds: Sequence[Problem]) -> Iterator[Request]:
    times: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        yield _request(prompting.evolution(seed), times[seed.id], seed)
        times[seed.id] += 1


def _answer_requests(questions: Sequence[_Evolved]) -> Iterator[Request]:
    for new in questions:
        prompt = tasks.get(new.seed.task).prompt(_as_problem(new, ""))
        for sample in range(evolution.ANSWERS):
            yield _request(prompt, sample, new)


def _request(prompt: str, sample: int, about: Problem | _Evolved) -> Request:
    return chat.request(
        prompt,
        model=_MODEL.value,
        max_tokens=_MAX_TOKENS.value,
        temperature=_TEMPERATURE.value,
        top_p=_TOP_P.value,
        sample=sample,
        about=about,
    )


def _new_questions(
    seeds: Sequence[Problem], replies: Appender[Reply], overlap: curate.Overlap, left_out: list[evolution.LeftOut]
) -> Iterator[_Evolved]:
    """The questions that pass, in the order of their seeds; counts the others by what is wrong with them."""
    seen: set[str] = set()
    for request in _question_requests(seeds):
        reply, seed = replies.rows.get(request.id), request.about
        if reply is None:
            continue
        question = _question(reply)
        normal = curate.normal(question)
        why = ""
        if not question:
            why = "no question in the reply"
        elif normal == curate.normal(seed.question) or normal in seen:
            why = "a repeated question"
        elif overlap.find(question):
            why = "gives a test question away"
        if why:
            left_out.append(_left_out(_Evolved(request.id, question, seed), why))
        else:
            seen.add(normal)
            yield _Evolved(request.id, question, seed)


def _left_out(new: _Evolved, why: str) -> evolution.LeftOut:
    return evolution.LeftOut(
        id=row_id(reply=new.id, seed=new.seed.id), question=new.question, seed=new.seed.id, why=why
    )


def _question(reply: Reply) -> str:
    """The new question in a reply; empty where there is none."""
    return "" if reply.failed else evolution.read_question(thinking.spoken(reply.text).text)


def _overlap(task: str) -> curate.Overlap:
    """What finds the questions that give a held-out one away; tells which sets cannot be checked."""
    sets, missing = gather.held_out(task, Path(_DATA_DIR.value) if _DATA_DIR.value else None, required=True)
    if missing:
        print(f"overlap is not checked with {', '.join(missing)}, which cannot be read here")
    return curate.Overlap(itertools.chain.from_iterable(sets.values()))


def _is_answered(request: Request, reply: Reply) -> bool:
    return _answer(request.about, reply) is not None


def _answer(new: _Evolved, reply: Reply) -> str | None:
    said = thinking.spoken(reply.text).text
    return None if reply.failed else tasks.get(new.seed.task).extract(said, _as_problem(new, ""))


def _problem(new: _Evolved, replies: Appender[Reply], left_out: list[evolution.LeftOut]) -> Problem | None:
    """The problem with its pseudo-gold; None where answers are missing or all differ."""
    found = [replies.rows.get(request.id) for request in _answer_requests([new])]
    answers = [_answer(new, reply) for reply in found if reply]
    if len(answers) < evolution.ANSWERS:
        return None
    agreed = evolution.majority(tasks.get(new.seed.task), answers)
    if agreed is None:
        left_out.append(_left_out(new, "no two answers agree"))
        return None
    gold, votes = agreed
    origin = new.seed.meta.get("seed", new.seed.id)  # of a question evolved twice, the first one
    meta = {"seed": origin, "teacher": _MODEL.value, "votes": votes}
    return _as_problem(new, gold).model_copy(update={"meta": meta})


def _as_problem(new: _Evolved, gold: str) -> Problem:
    task = new.seed.task
    return Problem(id=f"{task}/evolved/{new.id}", task=task, split="evolved", question=new.question, gold=gold)


if __name__ == "__main__":
    cli.run(main, out=lambda: None if _DRY_RUN.value else _OUT.value)
