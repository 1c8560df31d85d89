"""The audit of a file of corrections: what each keep rule rejected, which steps are wrong, and a sample to read.

Where people have marked the first wrong step of an attempt (`sample --student=stepverify`), the audit also counts how
often a teacher names the same step.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.evidence import charts, clusters, groups, page, stats, table
from lema_jax.faults import FAULTS
from lema_jax.records import Correction, Problem
from lema_jax.tasks.steps import split_steps

READ = 30  # corrections on the page
_REASONS = 12  # reasons of rejection that have a bar of their own
_LAST_STEP = 12  # steps from here on are one bar


@dataclass(frozen=True)
class Rate:
    """`count` of `n` corrections: those that were kept, or that agree; the 95 % interval is over questions."""

    count: int
    n: int
    interval: stats.Interval

    @property
    def share(self) -> float:
        return self.count / self.n


def _rate(true: Sequence[bool], problems: Sequence[Problem]) -> Rate:
    interval = clusters.share_interval(true, problems) if true else stats.Interval(0.0, 1.0)
    return Rate(sum(true), len(true), interval)


@dataclass(frozen=True)
class Agreement:
    """How often a teacher or a rule names the step that people marked, or one beside it; `n` counts the marks."""

    exact: Rate
    near: Rate  # at most one step away


@dataclass(frozen=True)
class Audit:
    """Counts over a file of corrections. `attempts` are distinct; one may have several corrections."""

    overall: Rate
    attempts: int
    attempts_corrected: int  # with at least one kept correction
    rejected: dict[str, int]  # by the rule that a row failed, most frequent first
    steps: dict[int, int]  # kept corrections by the step they call wrong, ascending
    rates: dict[str, dict[str, Rate]]  # key ("student", "teacher", a field of Problem.meta) -> value -> rate
    usage: dict[str, float]  # summed over the teachers' replies
    agreement: dict[str, Agreement]  # by teacher or trivial rule; empty where no step was marked


@dataclass(frozen=True, slots=True)
class _Fact:
    """A correction without its texts, so that a large file fits into memory."""

    attempt: str
    problem: Problem
    student: str
    teacher: str
    rejected: str
    step: int | None
    marks: tuple[int, ...]
    usage: dict[str, Any]


def load(path: Path) -> Audit:
    """The audit of a `corrections.jsonl`, read row by row.

    Raises:
      UserError: a file that is missing, malformed or empty.
    """
    found = audit(records.read(path, Correction))
    if not found.overall.n:
        raise UserError(f"{path} has no corrections; run correct again")
    return found


def audit(corrections: Iterable[Correction]) -> Audit:
    """Counts over corrections, kept and rejected; corrections may be more than fit into memory."""
    rows = list(_facts(corrections))
    kept = [row for row in rows if not row.rejected]
    rates = {"student": _rates(rows, lambda row: row.student), "teacher": _rates(rows, lambda row: row.teacher)}
    for key in groups.keys([row.problem for row in rows]):
        rates[key] = _rates(rows, lambda row, key=key: groups.value(row.problem, key))  # type: ignore[misc]
    usage: Counter[str] = Counter()
    for row in rows:
        usage.update({k: v for k, v in row.usage.items() if isinstance(v, int | float) and not isinstance(v, bool)})
    return Audit(
        overall=_rate([not row.rejected for row in rows], [row.problem for row in rows]),
        attempts=len({row.attempt for row in rows}),
        attempts_corrected=len({row.attempt for row in kept}),
        rejected=dict(Counter(row.rejected for row in rows if row.rejected).most_common()),
        steps=dict(sorted(Counter(row.step for row in kept if row.step is not None).items())),
        rates=rates,
        usage=dict(usage),
        agreement=_agreement([row for row in rows if row.marks]),
    )


def _facts(corrections: Iterable[Correction]) -> Iterator[_Fact]:
    problems: dict[str, Problem] = {}  # one object a problem, however many corrections it has
    for row in corrections:
        problem = problems.setdefault(row.attempt.problem.id, row.attempt.problem)
        yield _Fact(
            attempt=row.attempt.id,
            problem=problem,
            student=row.attempt.student,
            teacher=row.teacher,
            rejected=row.rejected,
            step=row.step,
            marks=row.attempt.labelled_steps,
            usage=row.usage,
        )


def _agreement(rows: Sequence[_Fact]) -> dict[str, Agreement]:
    """The agreement of each teacher, of people with each other, and of trivial rules (always step 1, always step 2)."""
    marks = [(mark, row) for row in rows for mark in row.marks]
    attempts = {row.attempt: row for row in rows}.values()
    named: dict[str, list[_Pair]] = {
        teacher: [(mark, row.step, row.problem) for mark, row in marks if row.teacher == teacher]
        for teacher in dict.fromkeys(row.teacher for row in rows)
    }
    people = [(pair, row.problem) for row in attempts for pair in itertools.combinations(row.marks, 2)]
    named["another person"] = [(one, other, problem) for (one, other), problem in people]
    named |= {f"always step {step}": [(mark, step, row.problem) for mark, row in marks] for step in (1, 2)}
    return {name: Agreement(_within(pairs, 0), _within(pairs, 1)) for name, pairs in named.items() if pairs}


_Pair = tuple[int, int | None, Problem]  # marked step, named step, and what about


def _within(pairs: Sequence[_Pair], distance: int) -> Rate:
    """How many pairs are at most that distance apart; no named step counts as far."""
    near = [step is not None and abs(mark - step) <= distance for mark, step, _ in pairs]
    return _rate(near, [problem for *_, problem in pairs])


def _finding(found: Audit) -> str:
    overall = found.overall
    return (
        f"{overall.count:,} of {overall.n:,} corrections are kept ({table.percent(overall.share)}, 95 % interval "
        f"{table.span(overall.interval)}); {found.attempts_corrected:,} of {found.attempts:,} wrong attempts have at "
        "least one."
    )


def _rates(rows: Sequence[_Fact], value: Callable[[_Fact], str]) -> dict[str, Rate]:
    parts: dict[str, list[_Fact]] = {}
    for row in rows:
        parts.setdefault(value(row), []).append(row)
    return {
        name: _rate([not row.rejected for row in parts[name]], [row.problem for row in parts[name]])
        for name in sorted(parts, key=groups.natural)
    }


def text(found: Audit) -> str:
    """The audit for the terminal."""
    rejected = [(name, f"{n:,}") for name, n in found.rejected.items()]
    lines = [_finding(found)]
    if rejected:
        lines += ["", table.text_table(("rejected because of", "corrections"), rejected)]
    for key, rates in found.rates.items():
        rows = [
            (name, f"{r.count:,}", f"{r.n:,}", table.percent(r.share), table.span(r.interval))
            for name, r in rates.items()
        ]
        lines += ["", table.text_table((key, "kept", "of", "share", "95 % interval"), rows)]
    if found.agreement:
        lines += ["", table.text_table(AGREEMENT, agreement_rows(found))]
    return "\n".join(lines)


AGREEMENT = ("who names the wrong step", "as marked", "95 % interval", "within one", "95 % interval", "of marks")


def agreement_rows(found: Audit) -> list[tuple[str, ...]]:
    """Rows of the table with the header `AGREEMENT`."""
    rows: list[tuple[str, ...]] = []
    for name, who in found.agreement.items():
        exact, near = ((table.percent(rate.share), table.span(rate.interval)) for rate in (who.exact, who.near))
        rows.append((name, *exact, *near, f"{who.exact.n:,}"))
    return rows


def html(found: Audit, corrections: Iterable[Correction], name: str, *, seed: int = 0) -> str:
    """The audit as an HTML page, with READ corrections drawn at random (seeded), beside their attempts."""
    overall = found.overall
    positions = _positions(found.steps)
    drawn = set(random.Random(seed).sample(range(overall.n), min(READ, overall.n)))
    shown = [row for number, row in enumerate(corrections) if number in drawn]
    return page.render(
        "corrections.html",
        title=f"Corrections in {name}",
        lead=f"{overall.n:,} corrections of {found.attempts:,} wrong attempts",
        finding=_finding(found),
        filters=charts.bars({"all": overall.n, **_most(found.rejected), "kept": overall.count}, "corrections"),
        faults=[
            (fault, f"{n:,}", FAULTS.get(fault, "As the endpoint reports it.")) for fault, n in found.rejected.items()
        ],
        positions=charts.bars(positions, "kept corrections") if positions else None,
        rates=[(key, _rate_plot(rates)) for key, rates in found.rates.items()],
        usage=[(name, f"{total:,.10g}") for name, total in found.usage.items()],
        agreement=(AGREEMENT, agreement_rows(found)) if found.agreement else None,
        rows=[{"row": row, "steps": split_steps(row.attempt.text)} for row in shown],
        seed=seed,
    )


def _most(rejected: dict[str, int]) -> dict[str, int]:
    """The most frequent reasons, the rest as one."""
    names = list(rejected)
    rest = {"other reasons": sum(rejected[name] for name in names[_REASONS:])} if len(names) > _REASONS else {}
    return {name: rejected[name] for name in names[:_REASONS]} | rest


def _positions(steps: dict[int, int]) -> dict[str, int]:
    counts = {f"step {step}": n for step, n in steps.items() if step < _LAST_STEP}
    late = sum(n for step, n in steps.items() if step >= _LAST_STEP)
    return counts | ({f"step {_LAST_STEP} or later": late} if late else {})


def _rate_plot(rates: dict[str, Rate]) -> Markup:
    names = [f"{name} (n={r.n:,})" for name, r in rates.items()]
    return charts.grouped(names, {"kept": [(r.share, r.interval) for r in rates.values()]}, "share kept", {"kept": 1})
