"""Corrections of a student's mistakes, by a teacher.

Reads   attempts that `sample` made; of these, the wrong ones.
Writes  corrections.jsonl: each names the wrong step, explains it and solves from there on; those that a keep rule
        rejects are written too, with the rule's name. A chat teacher's replies are kept beside it
        (corrections.replies.jsonl), so the same command run again asks only for what is missing.

  python -m lema_jax.correct --attempts=attempts.jsonl --out=corrections.jsonl --teacher=reference
  python -m lema_jax.correct --attempts=attempts.jsonl --out=corrections.jsonl --teacher=openai --model=gpt-4o \\
      --max_cost_usd=20 [--base_url=http://localhost:8000/v1] [--dry_run]

The reference teacher works offline from the gold rationale. A chat teacher is any OpenAI-compatible endpoint; its key
is read from OPENAI_API_KEY.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import flags

from lema_jax import errors, records
from lema_jax.errors import UserError
from lema_jax.records import Appender, Attempt, Correction, Verdict, row_id
from lema_jax.teacher import chat, endpoint, keep, prompting, reference
from lema_jax.teacher.budget import Price
from lema_jax.teacher.chat import Outcome, Reply, Request

_ATTEMPTS = flags.DEFINE_string("attempts", None, "attempts.jsonl of sample", required=True)
_OUT = flags.DEFINE_string("out", None, "the corrections file to write or to go on with", required=True)
_TEACHER = flags.DEFINE_enum(
    "teacher", "reference", ["reference", "openai"], "who corrects: offline, or a chat endpoint"
)
_MODEL = flags.DEFINE_string("model", "", "the chat teacher's model")
_PROMPT_FILE = flags.DEFINE_string(
    "prompt_file", None, "instruction and worked examples; the package's own if not given"
)
_SAMPLES = flags.DEFINE_integer("samples", 1, "replies to ask for each mistake", lower_bound=1)
_UNTIL_CORRECT = flags.DEFINE_bool(
    "until_correct", False, "ask for another only while none was kept, at most --samples"
)
_CUT = flags.DEFINE_bool("cut_at_first_error", False, "show the attempt only up to its wrong step in what is learnt")
_TEMPERATURE = flags.DEFINE_float("temperature", None, "of the chat teacher; the endpoint's own if not given")
_TOP_P = flags.DEFINE_float("top_p", None, "of the chat teacher; the endpoint's own if not given")
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", 1024, "the most tokens of a reply", lower_bound=1)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "only say what a chat teacher would be asked and what it would cost")
_ENDPOINT = endpoint.define_flags()

_ROWS_A_WRITE = 64


def main(argv: Sequence[str]) -> None:
    """Corrects every wrong attempt that the output has no row for, and counts what each filter left."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}")
    wrong = _wrong_attempts()
    if _TEACHER.value == "reference":
        _require_no_chat_flags()
        with Appender(_OUT.value, Correction) as out:
            _print_counts(_correct_offline(wrong, out))
        return
    _require_chat_flags()
    examples = {row.problem.task: prompting.worked_examples(row.problem, _PROMPT_FILE.value) for row in wrong}
    requests = functools.partial(_requests, examples)
    if _DRY_RUN.value:
        print(_ENDPOINT().estimate(requests(wrong, range(_SAMPLES.value)), endpoint.replies_of(_OUT.value)))
        return
    with Appender(_OUT.value, Correction) as out, Appender(endpoint.replies_of(_OUT.value), Reply) as replies:
        rows, outcome = _correct_by_chat(wrong, requests, out, replies)
        _print_counts(rows)
    outcome.require_all()


def _wrong_attempts() -> list[Attempt]:
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for attempt in records.read(_ATTEMPTS.value, Attempt):
        counts[attempt.verdict] += 1
        if attempt.verdict is Verdict.WRONG:
            wrong.append(attempt)
    told = f"{_ATTEMPTS.value}: " + ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in Verdict)
    if not wrong:
        raise UserError(f"{told}: nothing to correct; sample more, at a higher temperature, or from a weaker student")
    print(told)
    return wrong


def _append(out: Appender[Correction], rows: Iterable[Correction]) -> None:
    """Makes and writes the rows in their order, some at a time."""
    rows = iter(rows)
    while some := list(itertools.islice(rows, _ROWS_A_WRITE)):
        out.append(*some)


def _finished(row: Correction) -> Correction:
    return keep.cut_at_step(row) if _CUT.value else row


def _print_counts(rows: Sequence[Correction]) -> None:
    kept = [row for row in rows if not row.rejected]
    mistakes, corrected = (len({row.attempt.id for row in some}) for some in (rows, kept))
    print(f"{_OUT.value}: {len(kept):,} of {len(rows):,} corrections kept, for {corrected:,} of {mistakes:,} mistakes")
    rejected = collections.Counter(row.rejected for row in rows if row.rejected)
    for why in (*sorted(rejected.keys() - keep.RULES.keys()), *keep.RULES):
        print(f"  {rejected[why]:7,} rejected: {why}")


# --- the reference teacher --------------------------------------------------------------------------------------------


def _require_no_chat_flags() -> None:
    for flag in (_MODEL, _PROMPT_FILE, _TEMPERATURE, _TOP_P, _UNTIL_CORRECT, _DRY_RUN):
        if flag.value:
            raise UserError(f"--{flag.name} is for a chat teacher; give --teacher=openai with it")
    if _SAMPLES.value > 1:
        raise UserError("--samples is for a chat teacher: the reference teacher says the same each time")


def _correct_offline(wrong: Iterable[Attempt], out: Appender[Correction]) -> list[Correction]:
    by_id = {row_id(attempt=row.id, teacher=reference.TEACHER, cut=_CUT.value): row for row in wrong}
    missing = [(id, attempt) for id, attempt in by_id.items() if id not in out.rows]
    corrections = (keep.correction(id, row, reference.TEACHER, reference.reply(row)) for id, row in missing)
    _append(out, map(_finished, corrections))
    return [out.rows[id] for id in by_id]


# --- a chat teacher ---------------------------------------------------------------------------------------------------


def _require_chat_flags() -> None:
    if not _MODEL.value:
        raise UserError("--teacher=openai needs --model, the name that the endpoint knows it by")
    if _SAMPLES.value > 1 and _TEMPERATURE.value == 0:
        raise UserError(f"--samples={_SAMPLES.value} at --temperature=0 would all be the same; raise one of them")


def _requests(examples: dict[str, str], wrong: Iterable[Attempt], samples: Iterable[int]) -> Iterator[Request]:
    for attempt in wrong:
        prompt = prompting.correction(examples[attempt.problem.task], attempt)
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
    wrong: Sequence[Attempt],
    requests: Callable[[Iterable[Attempt], Iterable[int]], Iterator[Request]],
    out: Appender[Correction],
    replies: Appender[Reply],
) -> tuple[list[Correction], Outcome]:
    """Asks for all samples at once or, with --until_correct, for one after the other of what is not yet corrected.

    Rows are written in the order of the attempts when the replies are in: the file does not depend on their order.
    """
    where = _ENDPOINT()
    read = functools.partial(_chat_row, where.price(_MODEL.value))
    numbers = range(_SAMPLES.value)
    rows: list[Correction] = []
    outcome = Outcome(0)
    for samples in [[number] for number in numbers] if _UNTIL_CORRECT.value else [numbers]:
        corrected = {row.attempt.id for row in rows if _UNTIL_CORRECT.value and not row.rejected}
        asked = functools.partial(requests, [attempt for attempt in wrong if attempt.id not in corrected], samples)
        outcome += where.ask(asked, replies, lambda request, reply: not read(request, reply).rejected)
        new = [read(request, reply) for request in asked() if (reply := replies.rows.get(request.id))]
        _append(out, (one for one in new if one.id not in out.rows))
        rows += new
        if outcome.stopped:
            break
    return rows, outcome


def _chat_row(price: Price | None, request: Request, reply: Reply) -> Correction:
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens, "finish": reply.finish}
    if price:
        usage["cost_usd"] = price.of(reply.tokens)
    id = row_id(attempt=request.about.id, request=request.id, cut=_CUT.value)
    return _finished(keep.correction(id, request.about, _MODEL.value, reply.text, reply.failed, usage))


if __name__ == "__main__":
    errors.run(main)
