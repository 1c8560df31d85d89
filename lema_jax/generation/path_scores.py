"""Scores of reasoning paths in a file: how likely a checkpoint finds the right and the wrong attempts of `sample`."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.generation import score
from lema_jax.generation.student import Student
from lema_jax.records import Appender, Attempt, PathScore, Verdict, row_id


def read_attempts(path: str | Path, limit: int | None) -> list[Attempt]:
    """The first `limit` attempts of a file that are right or wrong: an attempt without an answer is neither.

    Raises:
      UserError: a file that cannot be read, or that has no question with both, between which ΔPPL is.
    """
    graded = (one for one in records.read(path, Attempt) if one.verdict in (Verdict.RIGHT, Verdict.WRONG))
    found = list(itertools.islice(graded, limit))
    kinds = {(one.problem.id, one.verdict) for one in found}
    if len(kinds) == len({id for id, _ in kinds}):
        raise UserError(
            f"{path}: none of its questions has both a right and a wrong attempt ({len(found):,} attempts are either); "
            "take a file with both kinds, or sample more of each"
        )
    return found


def complete(
    attempts: Sequence[Attempt],
    file: Appender[PathScore],
    read: Callable[[], Student],
    *,
    model: str,
    precision: Mapping[str, str],
    rows: int,
) -> list[PathScore]:
    """Scores what `file` lacks, and returns the scores in the attempts' order. An attempt that the model cannot read
    (empty, or longer than its context) is scored None.

    Args:
      attempts: right and wrong ones.
      file: the scores of an earlier run, to which new ones are appended.
      read: reads the student; called only where a score is missing.
      model: the student's identity; a part of a score's id, as `precision` (`Decoding.precision`) is.
      rows: pairs scored at a time.

    Raises:
      UserError: the file has scores of another model, or of other attempts.
    """
    ids: dict[str, Attempt] = {}
    for attempt in attempts:
        scored = {"prompt": attempt.prompt, "text": attempt.text, "right": attempt.verdict is Verdict.RIGHT}
        ids[row_id(model=model, attempt=attempt.id, **scored, **precision)] = attempt
    if strangers := file.rows.keys() - ids.keys():
        other = file.rows[min(strangers)]
        raise UserError(
            f"{file.path} holds scores of something else (model {other.checkpoint}, question {other.problem_id}): "
            "another model, step, attempts or limit; choose another --out, or remove the file"
        )
    missing = [(id, attempt) for id, attempt in ids.items() if id not in file.rows]
    if missing:
        pairs = [score.Pair(one.prompt, one.text, bool(one.sampling.get("rendered"))) for _, one in missing]
        for done in score.score(read(), pairs, rows=rows):
            file.append(_row(*missing[done.index], model, done.nll, done.tokens))
    return [file.rows[id] for id in ids]


def _row(id: str, attempt: Attempt, model: str, nll: float | None, tokens: int) -> PathScore:
    right = attempt.verdict is Verdict.RIGHT
    return PathScore(id=id, problem_id=attempt.problem.id, checkpoint=model, right=right, nll=nll, tokens=tokens)
