"""The report of a study: whether learning from mistakes helps, by how much, how surely, and what it cost."""

import math
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from lema_jax.evidence import charts, contrasts, drawn, equations, page, results, runs, table
from lema_jax.evidence.compare import Arm, Change, Comparison, change
from lema_jax.evidence.curves import Curve
from lema_jax.evidence.manifest import Job
from lema_jax.evidence.page import Finding
from lema_jax.evidence.results import Study, load
from lema_jax.evidence.stats import ALPHA
from lema_jax.evidence.table import Reads

__all__ = ["Study", "headline", "html", "load", "text"]

EACH = 40  # questions of each kind of change on the page
CURVES = ("loss", "grad_norm", "learning_rate", "tokens_per_second")
POINTS = 300  # of a curve; a long run is thinned

_HEADER = (
    *("arm", "reads", "accuracy", "95 % interval", "seeds", "Δ points", "its 95 % interval", "p", "adjusted p", "test"),
    *("official grader", "no answer"),
)
NOTES = (
    "Δ is the difference to the baseline on the same questions. Adjusted p-values are Holm's, over the comparisons of "
    "all arms on all tests: where no arm differs, one study of twenty has any below 0.05. “Reads” goes by them.",
    "“No answer” counts what is unparsed, truncated, or had too long a prompt.",
)
NOTE_CONTRASTS = (
    "Each line changes one thing between two arms. Its adjusted p-value is Holm's over the lines of all tests; "
    "displacement and interference add up to lema − cot, and so do content and format."
)
NOTE_SHARES = (
    "Shares are compared with the baseline, not with one another; the best of several is best partly by chance."
)


def headline(study: Study) -> list[Finding]:
    """The answer in one or two sentences, whichever way it falls, and what is not finished."""
    findings = []
    subject, baseline = study.subject, study.manifest.baseline
    compared = {test: of.comparisons[subject] for test, of in study.tests.items() if subject in of.comparisons}
    if subject is not None and compared:
        first, *others = compared
        findings.append(_answer(study, first, compared[first]))
        if others:
            findings.append(Finding(f"Elsewhere: {'; '.join(_short(study, test, compared[test]) for test in others)}."))
    else:
        findings.append(Finding(f"No answer yet: no arm is evaluated beside the baseline {baseline} on one test."))
    if left := _unfinished(study):
        findings.append(Finding(left))
    return findings


def _answer(study: Study, test: str, comparison: Comparison) -> Finding:
    other, baseline = comparison.other, comparison.baseline
    adjusted = study.adjusted[test, other.name]
    reads = table.reads(comparison, adjusted)
    what = "Learning from mistakes" if other.name.startswith(("lema", "corrections")) else other.name
    answer = {
        Reads.BETTER: f"{what} helps",
        Reads.WORSE: f"{what} hurts",
        Reads.UNCLEAR: f"{what} neither clearly helps nor clearly hurts",
    }[reads]
    n = f"{other.questions:,} questions" + (f" ({other.clusters})" if other.clusters else "")
    numbers = (
        f"{table.percent(other.accuracy)} against {table.percent(baseline.accuracy)}; 95 % interval of the difference "
        f"{table.points_span(comparison.interval)}; {table.said_p(comparison.p)}, after Holm's correction for "
        f"{study.planned} comparisons {table.said_p(adjusted)}; {_seeds(other)} of {other.name}, "
        f"{_seeds(baseline)} of {baseline.name}"
    )
    said = f"{answer} on {test}: of {n}, {other.name} {table.answers(comparison)}"
    ends = []
    needed = comparison.detectable(ALPHA / study.planned)  # the strictest of Holm's levels
    if reads is Reads.UNCLEAR and math.isfinite(needed):
        ends.append(f"A difference of {100 * needed:.1f} points or more is found 4 times in 5 after the correction.")
    if single := [arm.name for arm in (baseline, other) if arm.seeds == 1]:
        about = "two checkpoints" if len(single) == 2 else "that checkpoint"
        ends.append(f"With one seed of {' and '.join(single)} this is about {about}: another may move it by as much.")
    return Finding(" ".join([f"{said} ({numbers}).", *ends]), reads)


def _short(study: Study, test: str, comparison: Comparison) -> str:
    adjusted = study.adjusted[test, comparison.other.name]
    reads = table.reads(comparison, adjusted)
    return (
        f"{test} {reads}, {table.points(comparison.difference)} points ({table.points_span(comparison.interval)}, "
        f"adjusted {table.said_p(adjusted)}, n = {comparison.other.questions:,})"
    )


def _seeds(arm: Arm) -> str:
    return "one seed" if arm.seeds == 1 else f"{arm.seeds} seeds"


def _unfinished(study: Study) -> str:
    """What is missing or failed; empty where nothing is."""
    states = Counter(job.state for job in study.manifest.jobs)
    parts = [f"{states[state]} {state}" for state in ("missing", "failed") if states[state]]
    if parts:
        return f"Unfinished: of {states.total()} jobs {' and '.join(parts)}; what follows is of the others."
    return ""


def layout(study: Study, test: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of one test, an arm each."""
    tested = study.tests[test]
    rows = [
        _row(arm, study.manifest.baseline, tested.comparisons.get(name), study.adjusted.get((test, name)))
        for name, arm in tested.arms.items()
    ]
    return table.filled(_HEADER, rows)


def _row(arm: Arm, baseline: str, comparison: Comparison | None, adjusted: float | None) -> tuple[str, ...]:
    silent = (arm.unparsed + arm.truncated + arm.prompt_too_long) / arm.answers
    paper = "" if arm.paper is None else table.percent(arm.paper)
    measured = (table.percent(arm.accuracy), table.span(arm.interval), f"{arm.seeds}")
    beside = (paper, table.percent(silent))
    if comparison is None or adjusted is None:
        return (arm.name, "baseline" if arm.name == baseline else "", *measured, "", "", "", "", "", *beside)
    reads = table.reads(comparison, adjusted)
    difference = (table.points(comparison.difference), table.points_span(comparison.interval))
    p_values = (table.p_value(comparison.p), table.p_value(adjusted), table.tested(comparison))
    return (arm.name, f"{reads.sign} {reads}", *measured, *difference, *p_values, *beside)


def caption(study: Study, test: str) -> str:
    """What a test's questions are, whose prompts differ, and which arms learnt from less than they are named for."""
    arms = study.tests[test].arms
    first = next(iter(arms.values()))
    clusters = "" if first.clusters is None else f" in {first.clusters}"
    asked = [
        f"{name}'s prompts differ from {one.baseline.name}'s (styles {one.other.style}, {one.baseline.style}), so its "
        "difference is one of prompts as well"
        for name, one in study.tests[test].comparisons.items()
        if one.reworded
    ]
    missing = {name: study.funnels.get(name, {}).get("missing: own examples", 0) for name in arms}
    short = [f"{name} has {count:,} own examples fewer than its share" for name, count in missing.items() if count]
    return "; ".join([f"{first.questions:,} questions{clusters}", *asked, *short])


def decomposition(study: Study) -> dict[str, list[Finding]]:
    """By test, a sentence for each contrast whose arms are there."""
    return {
        test: [
            Finding(
                contrasts.sentence(one, comparison, study.adjusted_contrasts[test, one.name]),
                table.reads(comparison, study.adjusted_contrasts[test, one.name]),
            )
            for one, comparison in tested.contrasts.items()
        ]
        for test, tested in study.tests.items()
        if tested.contrasts
    }


def wrong(study: Study) -> dict[str, list[tuple[str, ...]]]:
    """By test, where its answers compute, the rows of `equations.layout`."""
    counts = {test: tested.equations for test, tested in study.tests.items()}
    return {test: equations.layout(of) for test, of in counts.items() if equations.tells(of.values())}


SHARES_HEADER = (
    "share of corrections",
    "arm",
    "accuracy",
    "95 % interval",
    "Δ points",
    "its 95 % interval",
    "adjusted p",
)


def shares_layout(study: Study, test: str, shares: dict[str, float]) -> list[tuple[str, ...]]:
    """The rows of one recipe's shares on one test with the header `SHARES_HEADER`."""
    tested = study.tests[test]
    rows: list[tuple[str, ...]] = []
    for name, share in shares.items():
        if name in tested.arms:
            arm, one = tested.arms[name], tested.comparisons.get(name)
            against = ("", "", "")
            if one is not None:
                p = table.p_value(study.adjusted[test, name])
                against = (table.points(one.difference), table.points_span(one.interval), p)
            rows.append((f"{100 * share:.3g} %", name, table.percent(arm.accuracy), table.span(arm.interval), *against))
    return rows


COST_HEADER = ("jobs", "done", "failed", "missing", "hours", "tokens", "US$")


def cost(jobs: Sequence[Job]) -> list[tuple[str, ...]]:
    """The rows of what the jobs took, a kind each and their sum, with the header `COST_HEADER`."""
    kinds = list(dict.fromkeys(job.kind for job in jobs))
    rows = [_cost(kind, [job for job in jobs if job.kind == kind]) for kind in kinds]
    return [*rows, _cost("all", jobs)] if len(kinds) > 1 else rows


def _cost(name: str, jobs: Sequence[Job]) -> tuple[str, ...]:
    states = Counter(job.state for job in jobs)
    hours = sum(job.seconds or 0 for job in jobs) / 3600
    tokens, usd = sum(job.tokens or 0 for job in jobs), sum(job.usd or 0 for job in jobs)
    counts = [f"{states[state]:,}" for state in ("done", "failed", "missing")]
    return (name, *counts, f"{hours:.2f}", f"{tokens:,.0f}", f"{usd:,.2f}")


def text(study: Study) -> str:
    """The report for the terminal."""
    parts = [finding.text for finding in headline(study)]
    for test in study.tests:
        parts.append(f"{test}: {caption(study, test)}\n\n{table.text_table(*layout(study, test))}")
    if study.adjusted:
        parts.append("\n".join(NOTES))
    for test, findings in decomposition(study).items():
        parts.append("\n".join([f"What the difference is made of, on {test}:", *(f"  {one.text}" for one in findings)]))
    for test, rows in wrong(study).items():
        parts.append(f"What goes wrong, on {test}:\n\n{table.text_table(equations.HEADER, rows)}\n\n{equations.NOTE}")
    for recipe, shares in study.shares.items():
        for test in study.tests:
            if rows := shares_layout(study, test, shares):
                parts.append(f"{recipe} by its share, on {test}:\n\n{table.text_table(SHARES_HEADER, rows)}")
    if study.manifest.jobs:
        parts.append(table.text_table(COST_HEADER, cost(study.manifest.jobs)))
    parts += [
        f"failed: {job.name}: {table.printable(job.error)}" for job in study.manifest.jobs if job.state == "failed"
    ]
    return "\n\n".join([*parts, *(f"not read: {why}" for why in study.unread)])


def html(study: Study, *, seed: int = 0) -> str:
    """The report as a self-contained HTML page, with questions to read, drawn at random (seeded).

    Raises:
      UserError: the answers to read are gone.
    """
    baseline = study.manifest.baseline
    colours = page.numbered(baseline, study.arms or [baseline])
    tests = [
        {
            "name": test,
            "caption": caption(study, test),
            "table": layout(study, test),
            "accuracy": charts.intervals(
                [(arm.name, arm.accuracy, arm.interval) for arm in tested.arms.values()],
                "accuracy",
                colours,
                points={name: seeds(arm) for name, arm in tested.arms.items() if arm.seeds > 1},
            ),
            "difference": page.differences(tested.comparisons, colours),
        }
        for test, tested in study.tests.items()
    ]
    return page.render(
        "study.html",
        title=f"Learning from mistakes on {study.manifest.task}",
        lead=f"{', '.join(study.arms) or 'no arm yet'}; tested on {', '.join(study.tests) or 'nothing yet'}",
        findings=headline(study),
        tests=tests,
        baseline=baseline,
        notes=NOTES,
        decomposition=decomposition(study),
        note_contrasts=NOTE_CONTRASTS,
        wrong=wrong(study),
        wrong_header=equations.HEADER,
        note_wrong=equations.NOTE,
        shares=_shares(study),
        shares_header=SHARES_HEADER,
        note_shares=NOTE_SHARES,
        curves=_curves(study, colours),
        funnel=funnel(study),
        cost_header=COST_HEADER,
        cost=cost(study.manifest.jobs),
        unfinished=[(job.kind, job.name, job.state, job.error) for job in study.manifest.jobs if job.state != "done"],
        unread=study.unread,
        method=page.METHOD,
        **_to_read(study, seed),
    )


def seeds(arm: Arm) -> list[float]:
    """The accuracy of each seed."""
    return [float(accuracy) for accuracy in arm.right.mean(axis=1)]


def _shares(study: Study) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for recipe, shares in study.shares.items():
        for test, tested in study.tests.items():
            there = {name: share for name, share in shares.items() if name in tested.arms}
            arms = [(share, tested.arms[name]) for name, share in there.items()]
            if len(arms) > 1:
                rows = [(share, arm.accuracy, arm.interval, seeds(arm)) for share, arm in arms]
                plot = charts.by_share(rows, f"accuracy on {test} by the share of corrections of {recipe}")
                table_rows = shares_layout(study, test, there)
                found.append({"name": f"{recipe} on {test}", "plot": plot, "rows": table_rows})
    return found


def _curves(study: Study, colours: dict[str, int]) -> list[tuple[str, Markup]]:
    """A plot for each measure that varies, with a line for each seed in its arm's colour."""
    plots = []
    colours = page.numbered(study.manifest.baseline, dict.fromkeys([*colours, *(arm for arm, _ in study.curves)]))
    for measure in CURVES:
        lines = {
            f"{arm}, seed {seed}": _thinned(curve[measure])
            for (arm, seed), curve in study.curves.items()
            if measure in curve
        }
        if len({value for _, values in lines.values() for value in values}) > 1:
            names = {f"{arm}, seed {seed}": arm for arm, seed in study.curves}
            plots.append((measure.replace("_", " "), charts.curves(lines, measure, colours, names=names)))
    return plots


def _thinned(curve: Curve) -> Curve:
    steps, values = curve
    every = 1 + len(steps) // POINTS
    return steps[::every], values[::every]


def funnel(study: Study) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Header and rows of the data: filters and kinds down, arms across; None without data sets."""
    if not study.funnels:
        return None
    names = dict.fromkeys(name for counts in study.funnels.values() for name, count in counts.items() if count)
    order = sorted(names, key=lambda name: name.startswith("trained on: "))
    rows = [(name, *(f"{counts.get(name, 0):,}" for counts in study.funnels.values())) for name in order]
    return ("examples", *study.funnels), rows


def _to_read(study: Study, seed: int) -> dict[str, object]:
    """The questions of the first test whose verdict differs between the first seeds of subject and baseline."""
    subject, baseline = study.subject, study.manifest.baseline
    test = next((test for test, of in study.tests.items() if subject in of.comparisons), None)
    if subject is None or test is None:
        return {"comparisons": [], "questions": []}
    before, after = runs.align([results.answers(study, arm, test) for arm in (baseline, subject)])
    kinds = [change(b, o) for b, o in zip(before.predictions, after.predictions)]
    numbers = sorted(drawn.numbers(kinds, EACH, seed))
    return {
        "comparisons": [subject],
        "baseline_run": f"{baseline} on {test}",
        "changes": [(subject, *(f"{kinds.count(kind):,}" for kind in Change))],
        "to_read": [kind.value for kind in page.TO_READ],
        "read_first": next((kind.value for kind in page.TO_READ if kind in kinds), ""),
        "filters": [],
        "questions": [
            {
                "problem": before.predictions[i].problem,
                "kinds": [kinds[i].value],
                "fields": [],
                "answers": [(baseline, before.predictions[i]), (subject, after.predictions[i])],
            }
            for i in numbers
            if kinds[i] is not Change.BOTH_RIGHT
        ],
    }
