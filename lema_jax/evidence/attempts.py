"""The report of a file of attempts: verdicts, students, lengths, and a sample of attempts to read."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.evidence import charts, clusters, drawn, groups, page, table
from lema_jax.records import Attempt, Problem, Verdict
from lema_jax.tasks.steps import split_steps

EACH = 40  # attempts of a verdict on the page
HEADER = ("student", "attempts", "questions", *(verdict.value.replace("_", " ") for verdict in Verdict), "tokens each")


@dataclass(frozen=True, slots=True)
class Fact:
    """An attempt without its texts, so that a large file fits into memory."""

    problem: Problem
    student: str
    verdict: Verdict
    steps: int
    tokens: int


def load(path: Path) -> list[Fact]:
    """The facts of an `attempts.jsonl`, read row by row.

    Raises:
      UserError: a file that is missing, malformed or empty.
    """
    found = facts(records.read(path, Attempt))
    if not found:
        raise UserError(f"{path} has no attempts; run sample again")
    return found


def facts(attempts: Iterable[Attempt]) -> list[Fact]:
    """The fact of each attempt; attempts may be more than fit into memory."""
    problems: dict[str, Problem] = {}  # one object a problem, however many attempts it has
    return [
        Fact(
            problem=problems.setdefault(row.problem.id, row.problem),
            student=row.student,
            verdict=row.verdict,
            steps=len(split_steps(row.text)),
            tokens=row.completion_tokens,
        )
        for row in attempts
    ]


def finding(found: Sequence[Fact]) -> str:
    """The share of right attempts and of questions with one, in a sentence."""
    right, questions = sum(row.verdict is Verdict.RIGHT for row in found), _questions(found)
    interval = clusters.share_interval([row.verdict is Verdict.RIGHT for row in found], [row.problem for row in found])
    ever = len({row.problem.id for row in found if row.verdict is Verdict.RIGHT})
    return (
        f"{right:,} of {len(found):,} attempts are right ({table.percent(right / len(found))}, 95 % interval "
        f"{table.span(interval)}); {ever:,} of {questions:,} questions have at least one."
    )


def rows(found: Sequence[Fact]) -> list[tuple[str, ...]]:
    """Rows of the table with the header `HEADER`, one a student."""
    lines = []
    for student in dict.fromkeys(row.student for row in found):
        own = [row for row in found if row.student == student]
        counts = Counter(row.verdict for row in own)
        verdicts = [f"{counts[verdict]:,}" for verdict in Verdict]
        tokens = f"{sum(row.tokens for row in own) / len(own):.1f}"
        lines.append((student, f"{len(own):,}", f"{_questions(own):,}", *verdicts, tokens))
    return lines


def text(found: Sequence[Fact]) -> str:
    """The report for the terminal."""
    return f"{finding(found)}\n\n{table.text_table(HEADER, rows(found))}"


def html(found: Sequence[Fact], attempts: Iterable[Attempt], name: str, *, seed: int = 0) -> str:
    """The report as an HTML page, with up to EACH attempts of every verdict, drawn at random (seeded), to read."""
    numbers = drawn.numbers([row.verdict for row in found], EACH, seed)
    shown = [(row, found[number]) for number, row in enumerate(attempts) if number in numbers]
    keys = groups.keys([row.problem for row in found])
    fields = [_fields(fact, keys) for _, fact in shown]
    filters = drawn.filters(fields)
    verdicts = Counter(row.verdict for row in found)
    return page.render(
        "attempts.html",
        title=f"Attempts in {name}",
        lead=f"{len(found):,} attempts at {_questions(found):,} questions of "
        + ", ".join(dict.fromkeys(row.problem.task for row in found)),
        finding=finding(found),
        verdicts=charts.bars({v.value.replace("_", " "): verdicts[v] for v in Verdict if verdicts[v]}, "attempts"),
        lengths=charts.bars(_lengths(found), "attempts"),
        rates=[(key, _rates(found, key)) for key in keys],
        students=(HEADER, rows(found)),
        kinds=[verdict.value for verdict in Verdict if verdicts[verdict]],
        filters=filters,
        items=[
            {
                "row": row,
                "steps": split_steps(row.text),
                "fields": [values[str(chosen["key"])] for chosen in filters],
            }
            for (row, _), values in zip(shown, fields)
        ],
        each=EACH,
        seed=seed,
    )


def _questions(found: Iterable[Fact]) -> int:
    return len({row.problem.id for row in found})


def _fields(fact: Fact, keys: Sequence[str]) -> dict[str, str]:
    return {
        "task": fact.problem.task,
        "student": fact.student,
        **{key: groups.value(fact.problem, key) for key in keys},
        "steps written": drawn.bucket(fact.steps, drawn.STEPS, "steps"),
        "length": drawn.bucket(fact.tokens, drawn.TOKENS, "tokens"),
    }


def _lengths(found: Iterable[Fact]) -> dict[str, int]:
    counts = Counter(drawn.bucket(row.steps, drawn.STEPS, "steps") for row in found)
    return {name: counts[name] for name in sorted(counts, key=drawn.order)}


def _rates(found: Sequence[Fact], key: str) -> Markup:
    parts: dict[str, list[Fact]] = {}
    for row in found:
        parts.setdefault(groups.value(row.problem, key), []).append(row)
    names = sorted(parts, key=groups.natural)[: page.TALLEST]
    values = []
    for name in names:
        right, problems = [row.verdict is Verdict.RIGHT for row in parts[name]], [row.problem for row in parts[name]]
        values.append((sum(right) / len(right), clusters.share_interval(right, problems)))
    shown = [f"{name} (n={len(parts[name]):,})" for name in names]
    return charts.grouped(shown, {"right": values}, "share right", {"right": 1})
