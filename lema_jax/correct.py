"""Corrections of a student's mistakes, or critiques of all its attempts, by a teacher.

Reads   attempts that `sample` made; of these, the wrong ones, and with --critique the right ones too.
Writes  corrections.jsonl: each names the wrong step, explains it and solves from there on; those that a keep rule
        rejects are written too, with the fault's name. A chat teacher's replies are kept beside it
        (corrections.replies.jsonl), so the same command run again asks only for what is missing.

  python -m lema_jax.correct --attempts=attempts.jsonl --out=corrections.jsonl --teacher=reference
  python -m lema_jax.correct --attempts=attempts.jsonl --out=corrections.jsonl --teacher=openai --model=gpt-4o \\
      --max_cost_usd=20 [--base_url=http://localhost:8000/v1] [--dry_run] [--limit=100 --seed=0]

The reference teacher works offline from the gold rationale. A chat teacher is any OpenAI-compatible endpoint; its key
is read from OPENAI_API_KEY.

With --critique each attempt, right or wrong, is judged instead, for build_data --arm=critique: reasons, and whether it
is right. A critique whose judgement is not the verdict of grading is rejected, as `wrong_judgement`.
"""

import dataclasses
import functools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from lema_jax import cli, stage
from lema_jax.data.mistakes import Mistakes
from lema_jax.errors import UserError
from lema_jax.records import Appender, Attempt, Correction, Critique, Problem, row_id
from lema_jax.stage import group, option
from lema_jax.tasks import last_number, prompts
from lema_jax.teacher import critique as critiques
from lema_jax.teacher import endpoint, keep, prompting, reference
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.chat_model import ChatModel
from lema_jax.teacher.endpoint import Endpoint
from lema_jax.teacher.landing import Landing
from lema_jax.teacher.prompting import Prompt
from lema_jax.teacher.tally import Tally

R = TypeVar("R", Correction, Critique)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` corrects."""

    attempts: Path | str = option(help="File of attempts that sample made.")
    out: Path | str = option(help="File of corrections to write, or to go on with.")
    teacher: str = option(
        "reference",
        "Who corrects: reference works offline from the gold rationales, openai is any OpenAI-compatible chat"
        " endpoint.",
        choices=("reference", "openai"),
    )
    critique: bool = option(False, "Write critiques of right and wrong attempts, instead of corrections of wrong ones.")
    limit: int | None = option(
        None, "Correct only so many wrong attempts: the first ones, or with --seed a random draw.", low=1
    )
    seed: int | None = option(
        None,
        "Seed of a random draw of the wrong attempts that --limit leaves. With the same seed a larger --limit draws the"
        " same ones and more.",
        low=0,
    )
    read_last_number: bool = option(False, last_number.HELP)
    cut_at_first_error: bool = option(False, "End the attempt that a correction shows after its first wrong step.")
    prompt_file: Path | str | None = option(
        None,
        "Text file with the instruction and worked examples for --teacher=openai. The case takes the place of its line"
        " {case}, or follows its end, as in the authors' released prompts. It is sent as one message; the package's"
        " own, which is the default, as a conversation in which each worked example is a turn.",
    )
    samples: int = option(1, "Replies to ask of --teacher=openai for each attempt.", low=1, high=10**5)
    until_correct: bool = option(
        False, "Ask for a further reply, up to --samples, only while none for that attempt was kept."
    )
    dry_run: bool = option(
        False,
        "Ask nothing; print how many requests and tokens --teacher=openai would take and what they cost.",
    )
    chat: ChatModel = group(ChatModel)
    endpoint: Endpoint = group(Endpoint)

    def problems(self) -> list[str]:
        return [*self._of_another_teacher(), *self._contradictions()]

    def writes(self) -> Path | str | None:
        return None if self.dry_run else self.out

    def _of_another_teacher(self) -> Iterator[str]:
        of_chat = {
            "prompt_file",
            "samples",
            "until_correct",
            "dry_run",
            *stage.names(ChatModel),
            *stage.names(Endpoint),
        }
        if self.teacher != "openai":
            for name in stage.changed(self):
                if name in of_chat:
                    yield f"--{name} is for a chat teacher; give --teacher=openai with it"

    def _contradictions(self) -> Iterator[str]:
        if self.seed is not None and self.limit is None:
            yield "--seed draws the wrong attempts that --limit leaves; give --limit with it"
        if self.critique and self.cut_at_first_error:
            yield "--cut_at_first_error is for corrections; a critique judges the whole attempt"
        if self.teacher == "openai" and not self.chat.model:
            yield "--teacher=openai needs --model, the name that the endpoint knows it by"
        if self.samples > 1 and self.chat.temperature == 0:
            yield f"--samples={self.samples} at --temperature=0 would all be the same; raise one of them"


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of the mistakes that the config selects, earlier runs into the same file included.

    Attributes:
      out: the file of corrections.
      mistakes: wrong attempts that have a correction, kept or not; with `critique`, attempts that have a critique.
      corrected: of these, the ones with a correction (critique) that was kept.
      rows: corrections (critiques) of them.
      kept: of these, the ones that pass every keep rule.
      rejected: the others, by their fault (`faults.FAULTS`).
      estimate: what a dry run would ask and pay, in words.
    """

    out: Path
    mistakes: int = 0
    corrected: int = 0
    rows: int = 0
    kept: int = 0
    rejected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    estimate: str = ""


@stage.function
def run(config: Config) -> Result:
    """Corrects every wrong attempt that the output has no row for, and counts what each keep rule rejects.

    Raises:
      UserError: a config that contradicts itself; attempts that cannot be read, none of which is wrong, or a prompt
        file that cannot be used; an endpoint that needs the user (its replies are kept).
    """
    mistakes = Mistakes(config.attempts, config.limit, config.seed, config.read_last_number, right=config.critique)
    families = _survey(mistakes)
    form: _Form = _CRITIQUES if config.critique else _CORRECTIONS
    if config.teacher == "reference":
        with Appender(config.out, form.row) as out:
            return _finish(config, _write_offline(mistakes, form, config.cut_at_first_error, out), out)
    prompt = {name: prompting.load(one, config.prompt_file, form.asked) for name, one in families.items()}
    asking = _Asking(config, mistakes, form, prompt)
    kept_in = endpoint.replies_of(config.out)
    if config.dry_run:
        estimate = config.endpoint.estimate(asking.requests(range(config.samples)), kept_in)
        if config.until_correct:
            estimate = f"if no reply is kept before its attempt's last sample:\n{estimate}"
        print(estimate)
        return Result(Path(config.out), estimate=estimate)
    with Appender(config.out, form.row) as out, Appender(kept_in, Reply) as replies:
        if note := prompting.asked_otherwise(out.rows.values(), asking.by_family.values(), form.asked):
            print(f"{config.out}: {note}")
        tally, outcome = _ask(asking, out, replies)
        result = _finish(config, tally, out)
        outcome.require_all()
    return result


@dataclasses.dataclass(frozen=True)
class _Form(Generic[R]):
    """What the teacher writes.

    Attributes:
      row: the type of its rows.
      asked: how a chat teacher is asked for it.
      offline: the reference teacher's reply to an attempt.
      read: the row of a reply.
      tally: counts rows.
    """

    row: type[R]
    asked: prompting.Form
    offline: Callable[[Attempt], str]
    read: Callable[..., R]
    tally: Callable[[], Tally]


_CORRECTIONS = _Form(Correction, prompting.CORRECTION, reference.reply, keep.correction, Tally)
_CRITIQUES = _Form(
    Critique,
    prompting.CRITIQUE,
    critiques.reply,
    critiques.row,
    functools.partial(Tally, "critiques", "attempts", critiques.RULES),
)


def _survey(mistakes: Mistakes) -> Mapping[str, Problem]:
    """Prints how many attempts have each verdict; returns a problem of each family that has wanted ones.

    Raises:
      UserError: none is wrong, or with `--critique` right or wrong.
    """
    found = mistakes.survey()
    counted = f"{mistakes.attempts}: {found}"
    if not found.families:
        raise UserError(
            f"{counted}: nothing to correct; sample more, at a higher temperature, or from a weaker student"
        )
    print(counted, *found.passed_over(), sep="\n")
    wanted = sum(found.verdicts[verdict] for verdict in mistakes.verdicts)
    if mistakes.limit is not None and mistakes.limit < wanted:
        how = "the first" if mistakes.seed is None else f"drawn with --seed={mistakes.seed}"
        which = "right and wrong ones are judged" if mistakes.right else "wrong ones are corrected"
        print(f"  {mistakes.limit:7,} of the {wanted:,} {which} (--limit, {how})")
    return found.families


def _finish(config: Config, tally: Tally, out: Appender[R]) -> Result:
    print(f"{config.out}: {tally}")
    if others := sum(row.attempt.id in tally.mistakes for row in out.rows.values()) - tally.rows:
        print(
            f"  {others:7,} more rows there are about the same attempts, of another model, prompt, sampling or "
            "--cut_at_first_error: build_data learns from all; for this run's alone, choose another --out"
        )
    return Result(
        out=Path(config.out),
        mistakes=len(tally.mistakes),
        corrected=len(tally.corrected),
        rows=tally.rows,
        kept=tally.kept,
        rejected=dict(tally.rejected),
    )


# --- the reference teacher --------------------------------------------------------------------------------------------


def _write_offline(mistakes: Mistakes, form: _Form[R], cut: bool, out: Appender[R]) -> Tally:
    """Appends the rows that the file lacks; counts those of all attempts."""
    ids: list[str] = []

    def missing() -> Iterator[R]:
        for attempt in mistakes:
            reply = form.offline(attempt)
            ids.append(_offline_id(attempt, reply, cut, out))
            if ids[-1] not in out.rows:
                yield _shown(form.read(ids[-1], attempt, reference.TEACHER, reply), cut)

    out.extend(missing())
    tally = form.tally()
    for id in ids:
        tally.add(out.rows[id])
    return tally


def _offline_id(attempt: Attempt, reply: str, cut: bool, out: Appender[R]) -> str:
    """The id of a row. It covers the reply, so another version of the teacher makes another row.

    Files of earlier versions name a row by its attempt's id alone; such a row is used where its reply is the same.
    """
    of_attempt = {"attempt": attempt.id, "teacher": reference.TEACHER, "cut": cut}
    earlier = row_id(**of_attempt)
    if (row := out.rows.get(earlier)) and row.text == reply and (cut or row.attempt.text == attempt.text):
        return earlier
    return row_id(**of_attempt, version=reference.VERSION, text=attempt.text, reply=reply)


def _shown(row: R, cut: bool) -> R:
    return keep.cut_at_step(row) if cut and isinstance(row, Correction) else row


# --- a chat teacher ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Asking:
    """What a chat teacher is asked, with the prompt of each family of problems."""

    config: Config
    mistakes: Mistakes
    form: _Form
    by_family: Mapping[str, Prompt]

    def prompt(self, problem: Problem) -> Prompt:
        return self.by_family[prompts.family(problem)]

    def requests(self, samples: Iterable[int], corrected: Container[str] = frozenset()) -> Iterator[Request]:
        """For each attempt that has no kept reply yet, as many as there are samples."""
        for attempt in self.mistakes:
            if attempt.id not in corrected:
                prompt = prompting.messages(self.prompt(attempt.problem), attempt, self.form.asked)
                for sample in samples:
                    yield self.config.chat.request(prompt, sample=sample, about=attempt)

    def row(self, out: Appender[Any], request: Request, reply: Reply) -> Any:
        """The row of a reply; the one in the file, if it is there."""
        attempt, cut = request.about, self.config.cut_at_first_error
        id = row_id(attempt=attempt.id, request=request.id, cut=cut)
        if id in out.rows:
            return out.rows[id]
        prompt, usage = self.prompt(attempt.problem).id, _usage(reply)
        return _shown(self.form.read(id, attempt, self.config.chat.model, reply.text, prompt, reply.failed, usage), cut)


def _usage(reply: Reply) -> dict[str, Any]:
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens, "finish": reply.finish}
    if reply.model:
        usage["model"] = reply.model
    if reply.cost_usd is not None:
        usage["cost_usd"] = reply.cost_usd
    return usage


def _ask(asking: _Asking, out: Appender[Any], replies: Appender[Reply]) -> tuple[Tally, Outcome]:
    """Asks for all samples at once or, with --until_correct, for one after the other while none was kept.

    Rows are written as replies come, and put in the order of the attempts in the end: the file does not depend on the
    order of the replies.
    """
    config = asking.config
    numbers = range(config.samples)
    tally, outcome, ids = asking.form.tally(), Outcome(0), []
    for samples in [[number] for number in numbers] if config.until_correct else [numbers]:
        corrected = frozenset(tally.corrected) if config.until_correct else frozenset()
        requests = functools.partial(asking.requests, samples, corrected)
        with Landing(out, functools.partial(asking.row, out)) as land:
            outcome += config.endpoint.ask(requests, replies, lambda request, reply: not land(request, reply).rejected)
            for request in requests():
                if reply := replies.rows.get(request.id):
                    row = land(request, reply)
                    tally.add(row)
                    ids.append(row.id)
        if outcome.stopped:
            break
    out.arrange(ids)
    return tally, outcome


command = cli.Command("correct", __doc__, Config, run)
if __name__ == "__main__":
    command.main()
