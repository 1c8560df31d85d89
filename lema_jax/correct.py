"""Corrections of a student's mistakes, by a teacher.

Reads   attempts that `sample` made; of these, the wrong ones.
Writes  corrections.jsonl: each names the wrong step, explains it and solves from there on; those that a keep rule
        rejects are written too, with the fault's name. A chat teacher's replies are kept beside it
        (corrections.replies.jsonl), so the same command run again asks only for what is missing.

  python -m lema_jax.correct --attempts=attempts.jsonl --out=corrections.jsonl --teacher=reference
  python -m lema_jax.correct --attempts=attempts.jsonl --out=corrections.jsonl --teacher=openai --model=gpt-4o \\
      --max_cost_usd=20 [--base_url=http://localhost:8000/v1] [--dry_run] [--limit=100 --seed=0]

The reference teacher works offline from the gold rationale. A chat teacher is any OpenAI-compatible endpoint; its key
is read from OPENAI_API_KEY.
"""

import collections
import functools
import heapq
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from absl import flags

from lema_jax import cli, records
from lema_jax.data import curate
from lema_jax.errors import UserError
from lema_jax.records import Appender, Attempt, Correction, Problem, Verdict, row_id
from lema_jax.tasks import last_number, prompts
from lema_jax.teacher import chat, endpoint, keep, prompting, reference
from lema_jax.teacher.chat import Outcome, Reply, Request
from lema_jax.teacher.endpoint import Endpoint
from lema_jax.teacher.landing import Landing
from lema_jax.teacher.prompting import Prompt

_ATTEMPTS = flags.DEFINE_string("attempts", None, "File of attempts that sample made.", required=True)
_OUT = flags.DEFINE_string("out", None, "File of corrections to write, or to go on with.", required=True)
_TEACHER = flags.DEFINE_enum(
    "teacher",
    "reference",
    ["reference", "openai"],
    "Who corrects: reference works offline from the gold rationales, openai is any OpenAI-compatible chat endpoint.",
)
_MODEL = flags.DEFINE_string("model", "", "Model of --teacher=openai, by the name that the endpoint knows it by.")
_PROMPT_FILE = flags.DEFINE_string(
    "prompt_file",
    None,
    "Text file with the instruction and worked examples for --teacher=openai. The case takes the place of its line"
    " {case}, or follows its end, as in the authors' released prompts. It is sent as one message; the package's own,"
    " which is the default, as a conversation in which each worked example is a turn.",
)
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Correct only so many wrong attempts: the first ones, or with --seed a random draw.", lower_bound=1
)
_SEED = flags.DEFINE_integer(
    "seed",
    None,
    "Seed of a random draw of the wrong attempts that --limit leaves. With the same seed a larger --limit draws the"
    " same ones and more.",
    lower_bound=0,
)
_READ_LAST_NUMBER = flags.DEFINE_bool(last_number.FLAG, False, last_number.HELP)
_SAMPLES = flags.DEFINE_integer("samples", 1, "Replies to ask of --teacher=openai for each wrong attempt.", 1, 10**5)
_UNTIL_CORRECT = flags.DEFINE_bool(
    "until_correct", False, "Ask for a further reply, up to --samples, only while none for that attempt was kept."
)
_CUT = flags.DEFINE_bool(
    "cut_at_first_error", False, "End the attempt that a correction shows after its first wrong step."
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", None, "Sampling temperature of --teacher=openai; the endpoint's default if not given.", 0, 100
)
_TOP_P = flags.DEFINE_float(
    "top_p", None, "Nucleus sampling (top-p) of --teacher=openai; the endpoint's default if not given.", 0, 1
)
_MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens", 1024, "The most tokens of a reply of --teacher=openai, those of hidden reasoning included.", 1
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Ask nothing; print how many requests and tokens --teacher=openai would take and what they cost."
)
_ENDPOINT = endpoint.define_flags()


def main(argv: Sequence[str]) -> None:
    """Corrects every wrong attempt that the output has no row for, and counts what each filter left."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}")
    if _SEED.value is not None and _LIMIT.value is None:
        raise UserError("--seed draws the wrong attempts that --limit leaves; give --limit with it")
    (_require_no_chat_flags if _TEACHER.value == "reference" else _require_chat_flags)()
    where = _ENDPOINT() if _TEACHER.value == "openai" else None  # its flags are checked before anything is written
    kinds = _kinds_of_mistakes()
    if where is None:
        with Appender(_OUT.value, Correction) as out:
            print(_correct_offline(out))
        return
    by_family = {kind: prompting.load(problem, _PROMPT_FILE.value) for kind, problem in kinds.items()}
    requests = functools.partial(_requests, by_family)
    if _DRY_RUN.value:
        if _UNTIL_CORRECT.value:
            print("if no mistake is corrected before its last sample:")
        print(where.estimate(requests(range(_SAMPLES.value)), endpoint.replies_of(_OUT.value)))
        return
    with Appender(_OUT.value, Correction) as out, Appender(endpoint.replies_of(_OUT.value), Reply) as replies:
        if said := prompting.asked_otherwise(out.rows.values(), by_family.values()):
            print(f"{_OUT.value}: {said}")
        counts, outcome = _correct_by_chat(where, by_family, requests, out, replies)
        print(counts)
        outcome.require_all()


def _kinds_of_mistakes() -> dict[str, Problem]:
    """A problem of each family that has wrong attempts; prints how many attempts there are of each verdict.

    Raises:
      UserError: none is wrong.
    """
    counts: collections.Counter[str] = collections.Counter()
    kinds: dict[str, Problem] = {}
    for attempt in _graded():
        counts[attempt.verdict] += 1
        if attempt.verdict is Verdict.WRONG:
            kinds.setdefault(prompts.family(attempt.problem), attempt.problem)
    usual = [verdict for verdict in Verdict if counts[verdict] or verdict is not Verdict.PROMPT_TOO_LONG]
    told = f"{_ATTEMPTS.value}: " + ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in usual)
    if not kinds:
        raise UserError(f"{told}: nothing to correct; sample more, at a higher temperature, or from a weaker student")
    print(told)
    for verdict, why in _PASSED_OVER.items():
        if counts[verdict]:
            print(f"  {counts[verdict]:7,} passed over: {why}")
    if _LIMIT.value is not None and _LIMIT.value < counts[Verdict.WRONG]:
        how = "the first" if _SEED.value is None else f"drawn with --seed={_SEED.value}"
        print(f"  {_LIMIT.value:7,} of the {counts[Verdict.WRONG]:,} wrong ones are corrected (--limit, {how})")
    return kinds


_PASSED_OVER = {
    Verdict.UNPARSED: "unparsed, no answer could be read; --read_last_number reads the only number of a last sentence",
    Verdict.TRUNCATED: "truncated, so that nobody knows what they would have answered; sample with more tokens",
    Verdict.PROMPT_TOO_LONG: "never asked, as their prompt is too long for the student",
}


def _graded() -> Iterator[Attempt]:
    rows = records.read(_ATTEMPTS.value, Attempt)
    return map(last_number.graded, rows) if _READ_LAST_NUMBER.value else rows


def _mistakes() -> Iterator[Attempt]:
    """The wrong attempts to correct, read again each time: they may be more than fit into memory."""
    chosen = _chosen()
    return (row for row in _graded() if row.verdict is Verdict.WRONG and (chosen is None or row.id in chosen))


@functools.cache
def _chosen() -> frozenset[str] | None:
    """The ids of the wrong attempts that --limit leaves; None: all."""
    if _LIMIT.value is None:
        return None
    ids = (row.id for row in _graded() if row.verdict is Verdict.WRONG)
    if _SEED.value is None:
        return frozenset(itertools.islice(ids, _LIMIT.value))
    return frozenset(heapq.nsmallest(_LIMIT.value, ids, key=functools.partial(curate.rank, _SEED.value)))


def _finished(row: Correction) -> Correction:
    return keep.cut_at_step(row) if _CUT.value else row


class _Counts:
    """What became of the mistakes."""

    def __init__(self) -> None:
        self.rows = self.kept = 0
        self.mistakes: set[str] = set()  # ids of attempts
        self.corrected: set[str] = set()  # of these
        self.rejected: collections.Counter[str] = collections.Counter()

    def add(self, row: Correction) -> None:
        self.rows += 1
        self.mistakes.add(row.attempt.id)
        if row.rejected:
            self.rejected[row.rejected] += 1
        else:
            self.kept += 1
            self.corrected.add(row.attempt.id)

    def __str__(self) -> str:
        lines = [
            f"{_OUT.value}: {self.kept:,} of {self.rows:,} corrections kept,"
            f" for {len(self.corrected):,} of {len(self.mistakes):,} mistakes"
        ]
        reasons = (*sorted(self.rejected.keys() - keep.RULES.keys()), *keep.RULES)
        return "\n".join(
            [
                *lines,
                *(f"  {self.rejected[why]:7,} rejected: {why}{_meaning(self.rejected[why], why)}" for why in reasons),
            ]
        )


def _meaning(count: int, fault: str) -> str:
    return f" ({records.FAULTS[fault].rstrip('.')})" if count and fault in records.FAULTS else ""


# --- the reference teacher --------------------------------------------------------------------------------------------


def _require_no_chat_flags() -> None:
    for flag in (_MODEL, _PROMPT_FILE, _TEMPERATURE, _TOP_P, _UNTIL_CORRECT, _DRY_RUN):
        if flag.value:
            raise UserError(f"--{flag.name} is for a chat teacher; give --teacher=openai with it")
    if _SAMPLES.value > 1:
        raise UserError("--samples is for a chat teacher: the reference teacher says the same each time")


def _correct_offline(out: Appender[Correction]) -> _Counts:
    """Appends the rows that the file lacks; counts those of the attempts as they are, in either case."""
    ids: list[str] = []

    def missing() -> Iterator[Correction]:
        for attempt in _mistakes():
            said = reference.reply(attempt)
            ids.append(_offline_id(attempt, said, out))
            if ids[-1] not in out.rows:
                yield _finished(keep.correction(ids[-1], attempt, reference.TEACHER, said))

    out.extend(missing())
    counts = _Counts()
    for id in ids:
        counts.add(out.rows[id])
    return counts


def _offline_id(attempt: Attempt, said: str, out: Appender[Correction]) -> str:
    """The id of a row: the reply is part of it, so that what another version of the teacher said is another row.

    Files of earlier versions name a row by its attempt's id alone; such a row stands where it says the same.
    """
    of_attempt = {"attempt": attempt.id, "teacher": reference.TEACHER, "cut": _CUT.value}
    earlier = row_id(**of_attempt)
    if (row := out.rows.get(earlier)) and row.text == said and (_CUT.value or row.attempt.text == attempt.text):
        return earlier
    return row_id(**of_attempt, version=reference.VERSION, text=attempt.text, reply=said)


# --- a chat teacher ---------------------------------------------------------------------------------------------------


def _require_chat_flags() -> None:
    if not _MODEL.value:
        raise UserError("--teacher=openai needs --model, the name that the endpoint knows it by")
    if _SAMPLES.value > 1 and _TEMPERATURE.value == 0:
        raise UserError(f"--samples={_SAMPLES.value} at --temperature=0 would all be the same; raise one of them")


def _requests(
    by_family: dict[str, Prompt], samples: Iterable[int], corrected: Container[str] = frozenset()
) -> Iterator[Request]:
    """For each mistake that is not corrected yet, as many as there are samples."""
    for attempt in _mistakes():
        if attempt.id in corrected:
            continue
        prompt = prompting.correction(by_family[prompts.family(attempt.problem)], attempt)
        for sample in samples:
            yield chat.request(
                prompt,
                model=_MODEL.value,
                max_tokens=_MAX_TOKENS.value,
                temperature=_TEMPERATURE.value,
                top_p=_TOP_P.value,
                sample=sample,
                about=attempt,
            )


def _correct_by_chat(
    where: Endpoint,
    by_family: dict[str, Prompt],
    requests: Callable[..., Iterator[Request]],
    out: Appender[Correction],
    replies: Appender[Reply],
) -> tuple[_Counts, Outcome]:
    """Asks for all samples at once or, with --until_correct, for one after the other of what is not yet corrected.

    Rows are written as replies come, and put in the order of the attempts in the end: the file does not depend on the
    order of the replies.
    """
    numbers = range(_SAMPLES.value)
    counts, outcome, ids = _Counts(), Outcome(0), []
    for samples in [[number] for number in numbers] if _UNTIL_CORRECT.value else [numbers]:
        corrected = frozenset(counts.corrected) if _UNTIL_CORRECT.value else frozenset()
        asked = functools.partial(requests, samples, corrected)
        with Landing(out, functools.partial(_chat_row, by_family, out)) as land:
            outcome += where.ask(asked, replies, lambda request, reply: not land(request, reply).rejected)
            for request in asked():
                if reply := replies.rows.get(request.id):
                    row = land(request, reply)
                    counts.add(row)
                    ids.append(row.id)
        if outcome.stopped:
            break
    out.arrange(ids)
    return counts, outcome


def _chat_row(by_family: dict[str, Prompt], out: Appender[Correction], request: Request, reply: Reply) -> Correction:
    """The row of a reply, from the file where it stands there."""
    id = row_id(attempt=request.about.id, request=request.id, cut=_CUT.value)
    if id in out.rows:
        return out.rows[id]
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens, "finish": reply.finish}
    if reply.model:
        usage["model"] = reply.model
    if reply.cost_usd is not None:
        usage["cost_usd"] = reply.cost_usd
    prompt = by_family[prompts.family(request.about.problem)]
    return _finished(keep.correction(id, request.about, _MODEL.value, reply.text, prompt.id, reply.failed, usage))


if __name__ == "__main__":
    cli.run(main, out=lambda: None if _DRY_RUN.value else _OUT.value)
