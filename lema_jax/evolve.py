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
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lema_jax import cli, records, stage, tasks
from lema_jax.data import curate, gather
from lema_jax.errors import UserError
from lema_jax.records import Appender, Correction, Problem, row_id
from lema_jax.stage import group, option
from lema_jax.tasks import phrases, thinking
from lema_jax.teacher import endpoint, evolution, prompting
from lema_jax.teacher.chat import Reply, Request
from lema_jax.teacher.chat_model import ChatModel
from lema_jax.teacher.endpoint import Endpoint
from lema_jax.teacher.evolution import LeftOut


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` evolves."""

    corrections: Sequence[Path | str] = option(
        (),
        "Files of corrections that correct made, separated by commas; new questions come from those kept.",
        paths=True,
    )
    seeds: str = option(
        "corrections",
        "Questions that new ones come from: those of --corrections, or random ones of the training split of --task.",
        choices=("corrections", "random"),
    )
    task: str = option("", "Task whose training split --seeds=random draws from: " + tasks.LISTED + ".")
    data_dir: Path | str | None = option(None, "Folder with the publishers' files; by default the variable LEMA_DATA.")
    count: int = option(10_000, "Seed questions to draw, with replacement.", low=1, high=10**7)
    seed: int = option(0, "Seed of the random draw.", low=0)
    out: Path | str = option(help="File of problems to write.")
    dry_run: bool = option(False, "Ask nothing; print what the endpoint would be asked and what it would cost.")
    chat: ChatModel = group(ChatModel)
    endpoint: Endpoint = group(Endpoint)

    def problems(self) -> list[str]:
        return list(self._problems())

    def writes(self) -> Path | str | None:
        return None if self.dry_run else self.out

    def _problems(self) -> Iterator[str]:
        if not self.chat.model:
            yield "--model is missing; give the name that the endpoint knows the chat model by"
        if self.chat.temperature == 0:
            yield "--temperature=0 would give the same answer three times; raise it"
        if self.seeds == "random" and not self.task:
            yield "--seeds=random needs --task, whose training questions it draws from"
        if self.seeds == "corrections" and not self.corrections:
            yield "--seeds=corrections needs --corrections, files of correct"


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of the seeds.

    Attributes:
      out: the file of new problems.
      seeds: seed questions drawn.
      made: new problems.
      left_out: new questions that became no problem, by the reason.
      left_out_file: the file that lists them; None where there are none.
      estimate: what a dry run would ask and pay, in words.
    """

    out: Path
    seeds: int
    made: int = 0
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    left_out_file: Path | None = None
    estimate: str = ""


@dataclasses.dataclass(frozen=True)
class _Evolved:
    """A new question and where it comes from."""

    id: str
    question: str
    seed: Problem


@stage.function
def run(config: Config) -> Result:
    """Asks for the questions, then for answers to those that pass, and writes the problems whose answers agree.

    Raises:
      UserError: a config that contradicts itself; corrections or questions that cannot be read, are of several tasks or
        ask to choose; an endpoint that needs the user (its replies are kept).
    """
    seeds = evolution.draw_seeds(_seed_problems(config), config.count, config.seed)
    ask_questions = functools.partial(_question_requests, config.chat)
    ask_answers = functools.partial(_answer_requests, config.chat)
    where, kept_in = config.endpoint, endpoint.replies_of(config.out)
    if config.dry_run:
        likely = [_Evolved(f"{number}", seed.question, seed) for number, seed in enumerate(seeds)]
        estimate = (
            f"questions: {where.estimate(ask_questions(seeds), kept_in)}\n"
            f"answers to all of them: {where.estimate(ask_answers(likely), kept_in)}"
        )
        print(estimate)
        return Result(Path(config.out), len(seeds), estimate=estimate)
    overlap = _overlap(config, seeds[0].task)  # before anything is paid for: its data may be missing
    with Appender(kept_in, Reply) as replies:
        outcome = where.ask(lambda: ask_questions(seeds), replies, lambda _, reply: bool(_question(reply)))
        questions, left_out = _new_questions(ask_questions(seeds), replies, overlap)
        if not outcome.stopped:
            outcome += where.ask(lambda: ask_answers(questions), replies, _is_answered)
        problems = []
        for new in questions:
            answers = [_answer(new, reply) for ask in ask_answers([new]) if (reply := replies.rows.get(ask.id))]
            if len(answers) < evolution.ANSWERS:
                continue
            if problem := _problem(new, answers, config.chat.model):
                problems.append(problem)
            else:
                left_out.append(_left_out(new, "no two answers agree"))
        result = Result(Path(config.out), len(seeds))
        if outcome.answered:
            result = _write(config, problems, left_out)
        outcome.require_all()
    return result


def _write(config: Config, problems: Sequence[Problem], left_out: Sequence[LeftOut]) -> Result:
    out = Path(config.out)
    records.write(out, problems)
    print(f"{config.out}: {len(problems):,} new problems from {config.count:,} seeds")
    reasons = collections.Counter(row.why for row in left_out)
    for why, count in reasons.items():
        print(f"  {count:7,} left out: {why}")
    listed = out.with_suffix(".left_out.jsonl") if left_out else None
    if listed:
        records.write(listed, left_out)
        print(f"{listed} lists the questions that were left out")
    return Result(out, config.count, len(problems), dict(reasons), listed)


def _seed_problems(config: Config) -> list[Problem]:
    """What seeds are drawn from; a question with several kept corrections is listed as often."""
    if config.seeds == "random":
        problems = tasks.get(config.task).load("train", Path(config.data_dir) if config.data_dir else None)
    else:
        rows = (row for path in config.corrections for row in records.read(path, Correction))
        problems = [row.attempt.problem for row in rows if not row.rejected]
        if not problems:
            files = ", ".join(map(str, config.corrections))
            raise UserError(f"no correction in {files} was kept; there is nothing to draw from")
    if len(named := {problem.task for problem in problems}) > 1:
        raise UserError(
            f"the corrections are of several tasks ({', '.join(sorted(named))}); evolve one after the other"
        )
    if problems[0].choices:
        raise UserError(f"the task {problems[0].task} asks to choose; new questions for it cannot be made")
    return problems


def _overlap(config: Config, task: str) -> curate.Overlap:
    """Finds the questions that give a held-out one away; prints which sets cannot be checked."""
    sets, missing = gather.held_out(task, Path(config.data_dir) if config.data_dir else None, required=True)
    if missing:
        print(f"overlap is not checked with {', '.join(missing)}, which cannot be read here")
    return curate.Overlap(itertools.chain.from_iterable(sets.values()))


# --- questions --------------------------------------------------------------------------------------------------------


def _question_requests(chat: ChatModel, seeds: Sequence[Problem]) -> Iterator[Request]:
    times: collections.Counter[str] = collections.Counter()
    for seed in seeds:
        yield chat.request(prompting.evolution(seed), sample=times[seed.id], about=seed)
        times[seed.id] += 1


def _question(reply: Reply) -> str:
    """The new question in a reply; empty where there is none."""
    return "" if reply.failed else evolution.read_question(thinking.spoken(reply.text).text)


def _new_questions(
    requests: Iterable[Request], replies: Appender[Reply], overlap: curate.Overlap
) -> tuple[list[_Evolved], list[LeftOut]]:
    """The questions that pass, in the order of their seeds, and the others with what is wrong with them."""
    passed, left_out = [], []
    seen: set[str] = set()
    for request in requests:
        if (reply := replies.rows.get(request.id)) is None:
            continue
        new = _Evolved(request.id, _question(reply), request.about)
        normal = curate.normal(new.question)
        if not new.question:
            left_out.append(_left_out(new, "no question in the reply"))
        elif normal == curate.normal(new.seed.question) or normal in seen:
            left_out.append(_left_out(new, "a repeated question"))
        elif overlap.find(new.question):
            left_out.append(_left_out(new, "gives a test question away"))
        else:
            seen.add(normal)
            passed.append(new)
    return passed, left_out


def _left_out(new: _Evolved, why: str) -> LeftOut:
    return LeftOut(id=row_id(reply=new.id, seed=new.seed.id), question=new.question, seed=new.seed.id, why=why)


# --- answers ----------------------------------------------------------------------------------------------------------


def _answer_requests(chat: ChatModel, questions: Sequence[_Evolved]) -> Iterator[Request]:
    for new in questions:
        prompt = tasks.get(new.seed.task).prompt(_as_problem(new, ""))
        for sample in range(evolution.ANSWERS):
            yield chat.request(prompt, sample=sample, about=new)


def _is_answered(request: Request, reply: Reply) -> bool:
    return _answer(request.about, reply) is not None


def _answer(new: _Evolved, reply: Reply) -> str | None:
    text = thinking.spoken(reply.text).text
    # The seed's gold says of which kind the answer is: a task of one's own may have several.
    gold = "" if phrases.is_one(new.seed.gold) else new.seed.gold
    return None if reply.failed else tasks.get(new.seed.task).extract(text, _as_problem(new, gold))


def _problem(new: _Evolved, answers: Sequence[str | None], model: str) -> Problem | None:
    """The problem with its pseudo-gold, the answer that most agree on; None where all differ."""
    agreed = evolution.majority(tasks.get(new.seed.task), answers)
    if agreed is None:
        return None
    gold, votes = agreed
    origin = new.seed.meta.get("seed", new.seed.id)  # of a question evolved twice, the first one
    return _as_problem(new, gold).model_copy(update={"meta": {"seed": origin, "teacher": model, "votes": votes}})


def _as_problem(new: _Evolved, gold: str) -> Problem:
    task = new.seed.task
    return Problem(id=f"{task}/evolved/{new.id}", task=task, split="evolved", question=new.question, gold=gold)


command = cli.Command("evolve", __doc__, Config, run)
if __name__ == "__main__":
    command.main()
