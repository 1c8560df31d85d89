"""Results as text: tables for the terminal, and the sentences that terminal and page share."""

import enum
import math
from collections.abc import Mapping, Sequence

from lema_jax.evidence import clusters, stats
from lema_jax.evidence.compare import Arm, Comparison, change, to_read
from lema_jax.evidence.runs import Choice
from lema_jax.evidence.samples import Measure
from lema_jax.evidence.summary import Summary
from lema_jax.records import Prediction, Problem

_LONGEST = 1500  # characters of an answer that are shown in the terminal


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def span(interval: stats.Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"


def points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def points_span(interval: stats.Interval) -> str:
    return f"{points(interval.low)} to {points(interval.high)}"


def p_value(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"


def said_p(p: float) -> str:
    """`p = 0.03`, or `p < 0.0001`."""
    return f"p = {p_value(p)}".replace("= <", "<")


def tested(comparison: Comparison) -> str:
    """The test of a comparison as a cell: McNemar's, or a t test with its degrees of freedom."""
    return "McNemar" if comparison.df is None else f"t, {comparison.df:.3g} df"


class Reads(enum.StrEnum):
    """How a comparison reads, in a word; the sign beside it says the same without colour."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"

    @property
    def sign(self) -> str:
        return {"better": "▲", "worse": "▼", "unclear": "≈"}[self.value]


def reads(comparison: Comparison, p: float | None = None) -> Reads:
    """How a comparison reads at the 5 % level; `p` is its p-value where it is corrected for several comparisons."""
    if (comparison.p if p is None else p) >= stats.ALPHA:
        return Reads.UNCLEAR
    return Reads.BETTER if comparison.difference > 0 else Reads.WORSE


def result(summary: Summary) -> str:
    """The result of one run in a line, and in a second one the measures of several samples."""
    paper = "" if summary.paper is None else f"; {percent(summary.paper)} by the official grader"
    too_long = f", {summary.prompt_too_long:,} prompts too long" if summary.prompt_too_long else ""
    within = f" in {summary.clusters}" if summary.clusters else ""
    samples = f" × {summary.samples} samples" if summary.samples > 1 else ""
    line = (
        f"{percent(summary.accuracy)} right, 95 % interval {span(summary.interval)}, n = {summary.n:,}{samples}"
        f"{within} ({summary.wrong:,} wrong, {summary.unparsed:,} unparsed, {summary.truncated:,} truncated"
        f"{too_long}){paper}"
    )
    return "\n  ".join(filter(None, (line, of_samples(summary))))


def of_samples(summary: Summary) -> str:
    """avg@k, pass@j and maj@k with their intervals; empty for one answer a question."""
    if summary.majority is None:
        return ""
    measures = {f"avg@{summary.samples}": Measure(summary.accuracy, summary.interval)}
    measures |= {f"pass@{tries}": of for tries, of in summary.pass_at.items() if tries > 1}
    measures |= {f"maj@{summary.samples}": summary.majority}
    return ", ".join(f"{name} {percent(of.value)} ({span(of.interval)})" for name, of in measures.items())


_HEADER = (
    *("run", "accuracy", "n", "95 % interval", "official grader", "wrong", "unparsed", "truncated", "prompt too long"),
    *("Δ points", "its 95 % interval", "p", "test"),
)


def layout(arms: Sequence[Arm], comparisons: Mapping[str, Comparison]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows, one row an arm, without the columns that say nothing of any.

    Args:
      comparisons: by the arm's name; the baseline has none.
    """
    return filled(_HEADER, [_row(arm, comparisons.get(arm.name)) for arm in arms], but=("prompt too long", "0"))


def filled(
    header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, but: tuple[str, str] = ("", "")
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows without the columns that are empty in all rows, and without `but` where all have that value."""
    keep = [i for i, name in enumerate(header) if any(row[i] and (name, row[i]) != but for row in rows) or not rows]
    return tuple(header[i] for i in keep), [tuple(row[i] for i in keep) for row in rows]


def _row(arm: Arm, comparison: Comparison | None) -> tuple[str, ...]:
    several = {"seeds": arm.seeds, "samples": arm.samples}
    times = "".join(f" × {count} {what}" for what, count in several.items() if count > 1)
    against = ("baseline", "", "", "")
    if comparison is not None:
        by = (p_value(comparison.p), tested(comparison))
        against = (points(comparison.difference), points_span(comparison.interval), *by)
    paper = "" if arm.paper is None else percent(arm.paper)
    counts = [f"{count:,}" for count in (arm.wrong, arm.unparsed, arm.truncated, arm.prompt_too_long)]
    measured = (arm.name, percent(arm.accuracy), f"{arm.questions:,}{times}", span(arm.interval), paper)
    return (*measured, *counts, *against)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table with padded columns: the first left-aligned, the others right-aligned."""
    rows = [[printable(cell) for cell in row] for row in rows]  # names come from files
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    rule = ["─" * width for width in widths]
    return "\n".join(
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths)))
        for line in (header, rule, *rows)
    )


def sentence(comparison: Comparison) -> str:
    """A comparison in a sentence of one form, whatever its result."""
    return " ".join(filter(None, (_measured(comparison), _equal(comparison), _prompts(comparison))))


def _equal(comparison: Comparison) -> str:
    """How many texts are the same, as of one model served in two ways; empty where none is."""
    found = comparison.equal
    if found is None or not found.texts:
        return ""
    n = comparison.other.questions
    return f"{found.texts:,} of {n:,} texts are equal, and {found.answers:,} of the answers read from them."


def _prompts(comparison: Comparison) -> str:
    """A warning where the prompts differ; empty where they do not."""
    if not comparison.reworded:
        return ""
    styles = f"{comparison.other.style} against {comparison.baseline.style}"
    return (
        f"{comparison.reworded:,} of their prompts differ ({styles}), so the difference is one of prompts as well as "
        "of models."
    )


def _measured(comparison: Comparison) -> str:
    baseline, other = comparison.baseline, comparison.other
    n = f"{other.questions:,} questions"
    if comparison.paired is not None and not comparison.paired.discordant:
        return f"{other.name} and {baseline.name} answer exactly the same of the {n} right: they show no difference."
    what = f"{other.name} {answers(comparison, f'of the {n} ')}"
    how = f"{percent(other.accuracy)} against {percent(baseline.accuracy)}"
    how += f"; 95 % interval of the difference {points_span(comparison.interval)}"
    how += f"; {comparison.test} {said_p(comparison.p)}"
    return f"{what} ({how}). {_judgement(comparison)}"


def answers(comparison: Comparison, of: str = "") -> str:
    """How many more or fewer it answers right: "answers 1.2 points more right than cot"."""
    if abs(comparison.difference) < 0.0005:
        return f"answers as many {of}right as {comparison.baseline.name}, to the tenth of a point"
    size = f"{100 * abs(comparison.difference):.1f} points {'more' if comparison.difference > 0 else 'fewer'}"
    return f"answers {size} {of}right than {comparison.baseline.name}"


def _judgement(comparison: Comparison) -> str:
    if comparison.significant:
        return f"Significant at the 5 % level. {_scope(comparison)}"
    seen = "Not significant at the 5 % level"
    if math.isinf(needed := comparison.detectable()):
        return f"{seen}: the runs disagree on too few questions for any difference to show."
    return (
        f"{seen}: on this many questions, answered differently as often as here, only a difference of "
        f"{100 * needed:.1f} points or more is found 4 times in 5. {_scope(comparison)}"
    )


def _scope(comparison: Comparison) -> str:
    """What the interval and the test cover: seeds, and clusters of questions."""
    baseline, other = comparison.baseline, comparison.other
    over = "questions" if baseline.clusters is None else str(baseline.clusters)
    if other.samples > 1:
        over += f", {other.samples} samples each"
    if baseline.seeds == other.seeds == 1:
        about = "" if over == "questions" else f"The interval covers {over}. "
        return f"{about}One training run each: this does not say how far another seed would move it."
    single = [arm.name for arm in (baseline, other) if arm.seeds == 1]
    seeds = f"{other.seeds} training seeds of {other.name} and {baseline.seeds} of {baseline.name}"
    alone = f" {single[0]} is one checkpoint, taken as it is." if single else ""
    return f"The interval covers {seeds}, and {over}.{alone}"


def several(comparisons: Mapping[str, Comparison]) -> str:
    """The findings that remain significant after Holm's correction; empty for fewer than two tests.

    Args:
      comparisons: all that were made, by a name that tells them apart.
    """
    if len(comparisons) < 2:
        return ""
    corrected = stats.holm([comparison.p for comparison in comparisons.values()])
    left = [f"{name} ({said_p(p)})" for name, p in zip(comparisons, corrected) if p < stats.ALPHA]
    return (
        f"Of {len(comparisons)} comparisons, after correction for their number (Holm), significant: "
        f"{', '.join(left) or 'none'}."
    )


def before_a_run(problems: Sequence[Problem]) -> str:
    """The difference that so many questions can show, for two assumed rates of disagreement; printed before a run."""
    n, within = len(problems), clusters.find(problems)
    sizes = [(share, stats.detectable_paired(n, share)) for share in (0.1, 0.3)]
    differences = " and ".join(
        f"{f'{100 * size:.1f} points' if math.isfinite(size) else 'too large to exist'} (if {percent(share)} of the "
        "answers differ)"
        for share, size in sizes
    )
    if all(math.isinf(size) for _, size in sizes):
        return f"{n:,} questions are too few to show any difference between two runs 4 times in 5; take more."
    return (
        f"The smallest difference between two runs that {n:,} questions show 4 times in 5 is {differences}; "
        f"{'' if within is None else f'they are in {within}, so it may be larger; '}"
        "to see a smaller one, take more questions or several seeds."
    )


def choice(chosen: Choice) -> str:
    """The accuracy of the checkpoint chosen on dev, and that of one chosen on test."""
    dev, test, best = chosen.on_dev, chosen.on_test, chosen.best_test
    return (
        f"Chosen on dev: {chosen.chosen.name} ({percent(dev.accuracy)} of {dev.n:,} dev questions), on test "
        f"{percent(test.accuracy)}, 95 % interval {span(test.interval)}.\n"
        f"Best on test: {chosen.best_on_test.name}, {percent(best.accuracy)} — the paper's rule, which is optimistic: "
        "it chooses by the questions that it reports."
    )


def examples(comparison: Comparison, count: int, *, seed: int = 0) -> str:
    """Up to `count` questions with both answers to read, of the first run of each arm."""
    before, after = comparison.baseline, comparison.other
    pairs = to_read(before.runs[0], after.runs[0], count, seed=seed)
    return "\n\n".join(
        "\n".join(
            (
                f"── {change(b, o)}: {printable(b.problem.id)}  (gold {printable(b.problem.gold)})",
                quote(b.problem.question),
                _label(before.name, b),
                quote(b.text),
                _label(after.name, o),
                quote(o.text),
            )
        )
        for b, o in pairs
    )


def _label(name: str, prediction: Prediction) -> str:
    answer = "" if prediction.answer is None else f", answer {printable(prediction.answer)}"
    return f"{name} — {prediction.verdict}{answer}:"


def quote(text: str) -> str:
    """A model's text for the terminal: marked line by line, truncated when very long, without control characters."""
    shown = text.strip()
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]} … ({len(shown) - _LONGEST:,} more characters)"
    return "\n".join(f"  │ {printable(line)}" for line in shown.splitlines()) or "  │"


def printable(line: str) -> str:
    """The line with control characters escaped: an answer must not move the cursor or colour the screen."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)
