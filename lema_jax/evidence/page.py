"""The pages of reports: single HTML files that open from disk and need no network."""

import base64
import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import jinja2
from markupsafe import Markup

from lema_jax.evidence import ablation, charts, formulas, groups, table
from lema_jax.evidence import contamination as contaminated
from lema_jax.evidence.compare import Arm, Change, Comparison, change
from lema_jax.evidence.curves import Curve
from lema_jax.evidence.runs import Run
from lema_jax.evidence.table import Reads

TALLEST = 12  # groups in one plot
TO_READ = (Change.FIXED, Change.BROKEN, Change.BOTH_WRONG)
METHOD = (
    "An interval of one run's accuracy is Wilson's; of a difference on the same questions, Tango's score interval. "
    "McNemar's exact test asks how often a fair coin would split the questions on which two runs differ as unevenly as "
    "they did. Both are about questions like these and these two checkpoints; a claim about recipes needs seeds.",
    "With several training seeds, interval and p are those of a t test on crossed random effects: the variance between "
    "seeds, of either arm, and the variance between questions, with Satterthwaite's degrees of freedom. A checkpoint "
    "without other seeds is taken as it is.",
    "Questions made from one seed question or one template are one cluster, whose answers go right and wrong together: "
    "the interval and the test then draw clusters, so they are about other templates too, not only other questions.",
    "With several samples a question, accuracy is that of one sample (avg@k), and the interval is over questions: more "
    "samples do not average away the draw of the questions. Answers to read are the first samples.",
    "“Unparsed” is a finished answer in which no result could be read, “truncated” one that ended at the token limit, "
    "“prompt too long” a question that left no room in the model's context; none of them is “wrong”, nor right.",
)


@dataclass(frozen=True)
class Finding:
    """A sentence of a page, and how it reads where it is of a comparison."""

    text: str
    reads: Reads | None = None


def render(template: str, **values: object) -> str:
    """A page from a template of the package; every text is escaped unless it is Markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lema_jax.evidence"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["formulas"] = formulas.rendered
    style, script = (_source(environment, name) for name in ("style.css", "filter.js"))
    # The Content-Security-Policy allows this one script by its hash, so that none in a model's text can run.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(style=style, script=script, script_hash=digest, **values)


def _source(environment: jinja2.Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def runs_page(
    arms: Sequence[Arm],
    comparisons: Mapping[str, Comparison],
    *,
    baseline: Arm,
    choice: str = "",
    contamination: Mapping[str, Sequence[Sequence[str]]] | None = None,
    training: Mapping[str, Mapping[str, Curve]] | None = None,
    funnels: Mapping[str, Mapping[str, int]] | None = None,
) -> str:
    """The page of arms that answered the same questions.

    Args:
      arms: in the order of display; their runs are aligned with one another.
      comparisons: by the arm's name; the baseline has none.
      baseline: the arm that the others are compared with.
      choice: text of `table.choice`, where checkpoints were chosen on dev.
      contamination: rows of `contamination.rows` by title; those without rows are left out.
      training: curves (`curves.read`) by the name of a training run.
      funnels: counts at each filter, by the name of a data set.
    """
    problems = [prediction.problem for prediction in baseline.runs[0].predictions]
    keys = groups.keys(problems)
    first = problems[0]
    others = [(label, run) for arm in arms for label, run in labelled(arm) if run is not baseline.runs[0]]
    kinds = [
        [change(b, o) for b, o in zip(baseline.runs[0].predictions, run.predictions)] for _, run in others
    ]  # [other run][question]
    everyone = [*((label, run) for label, run in labelled(baseline)[:1]), *others]
    names = dict.fromkeys([*(arm.name for arm in arms), *(training or {})])
    colours = numbered(baseline.name, names) if comparisons else {name: i for i, name in enumerate(names, start=1)}
    header, rows = table.layout(arms, comparisons)
    return render(
        "runs.html",
        title=f"{' · '.join(arm.name for arm in arms)} on {first.task}",
        lead=f"{len(problems):,} questions of {first.task}, split {first.split}",
        findings=_findings(comparisons),
        choice=choice,
        contamination={title: parts for title, parts in (contamination or {}).items() if parts},
        contamination_header=contaminated.HEADER,
        header=header,
        rows=rows,
        baseline=baseline.name,
        accuracy_plot=charts.intervals([(a.name, a.accuracy, a.interval) for a in arms], "accuracy", colours),
        difference_plot=differences(comparisons, colours),
        groups=[{"key": key, "plots": _group_plots(groups.by(key, arms), colours)} for key in keys],
        comparisons=[label for label, _ in others],
        baseline_run=everyone[0][0],
        to_read=[kind.value for kind in TO_READ],
        read_first=next((kind.value for kind in TO_READ for of in kinds[:1] if kind in of), ""),
        changes=[(label, *(f"{of.count(kind):,}" for kind in Change)) for (label, _), of in zip(others, kinds)],
        filters=[{"key": key, "groups": groups.by(key, arms).groups} for key in keys],
        questions=[
            {
                "problem": problem,
                "kinds": [of[i].value for of in kinds],
                "fields": [groups.value(problem, key) for key in keys],
                "answers": [(label, run.predictions[i]) for label, run in everyone],
            }
            for i, problem in enumerate(problems)
            if any(of[i] is not Change.BOTH_RIGHT for of in kinds)
        ],
        curves=_curve_plots(training or {}, colours),
        funnels=[{"name": name, "plot": charts.bars(counts, "examples")} for name, counts in (funnels or {}).items()],
        cost=[_cost(label, run) for label, run in everyone],
        training=[_training_cost(name, curves) for name, curves in (training or {}).items()],
        method=METHOD,
    )


def tasks_page(results: Mapping[str, ablation.Result], baseline: str) -> str:
    """The page of runs of several tasks (`ablation.by_task`): the paper's table, and each task's differences."""
    header, rows = ablation.layout(results)
    compared = {task: result.comparisons for task, result in results.items() if result.comparisons}
    colours = numbered(baseline, [name for name, *_ in rows])
    return render(
        "tasks.html",
        title=" · ".join(name for name, *_ in rows),
        lead=f"on {', '.join(results)}",
        header=header,
        rows=rows,
        note=ablation.NOTE,
        baseline=baseline,
        plots=[(task, differences(comparisons, colours)) for task, comparisons in compared.items()],
        findings={task: [_finding(one) for one in comparisons.values()] for task, comparisons in compared.items()},
        together=ablation.several(results),
        method=METHOD,
    )


def labelled(arm: Arm) -> list[tuple[str, Run]]:
    """An arm's runs with a name each: the arm's, numbered where it has several seeds."""
    if len(arm.runs) == 1:
        return [(arm.name, arm.runs[0])]
    return [(f"{arm.name} #{number}", run) for number, run in enumerate(arm.runs, start=1)]


def numbered(baseline: str, names: Iterable[str]) -> dict[str, int]:
    """Colour numbers by name: 0 for the baseline, the others from 1 in their order."""
    return {baseline: 0} | {name: i for i, name in enumerate((n for n in names if n != baseline), start=1)}


def _findings(comparisons: Mapping[str, Comparison]) -> list[Finding]:
    """A sentence for each comparison, and one for all together."""
    findings = [_finding(comparison) for comparison in comparisons.values()]
    if together := table.several(comparisons):
        findings.append(Finding(together))
    return findings


def _finding(comparison: Comparison) -> Finding:
    return Finding(table.sentence(comparison), table.reads(comparison))


def differences(comparisons: Mapping[str, Comparison], colours: Mapping[str, int]) -> Markup | None:
    rows = [(name, comparison.difference, comparison.interval) for name, comparison in comparisons.items()]
    return charts.intervals(rows, "points more than the baseline", colours, zero=True) if rows else None


def _group_plots(grouped: groups.Grouped, colours: Mapping[str, int]) -> list[Markup]:
    """The groups in plots of at most TALLEST each."""
    names = [f"{group} (n={n:,})" for group, n in zip(grouped.groups, grouped.n)]
    return [
        charts.grouped(
            names[start : start + TALLEST],
            {arm: values[start : start + TALLEST] for arm, values in grouped.accuracy.items()},
            f"accuracy by {grouped.key}",
            colours,
        )
        for start in range(0, len(names), TALLEST)
    ]


def _curve_plots(training: Mapping[str, Mapping[str, Curve]], colours: Mapping[str, int]) -> list[tuple[str, Markup]]:
    """A plot for each measure with a line for each training run; constant measures are left out."""
    measures = dict.fromkeys(chain.from_iterable(training.values()))
    plots = []
    for measure in measures:
        lines = {name: curves[measure] for name, curves in training.items() if measure in curves}
        if len(set(chain.from_iterable(values for _, values in lines.values()))) > 1:
            plots.append((measure.replace("_", " "), charts.curves(lines, measure, colours)))
    return plots


def _cost(label: str, run: Run) -> tuple[str, ...]:
    prompts = sum(prediction.prompt_tokens for prediction in run.answers)
    answers = [prediction.completion_tokens for prediction in run.answers]
    total = sum(answers)
    return (label, f"{prompts:,}", f"{total:,}", f"{total / len(answers):.1f}", f"{max(answers):,}")


def _training_cost(name: str, curves: Mapping[str, Curve]) -> tuple[str, ...]:
    """Steps, tokens and time of a training run, as far as its metrics have them."""
    steps = max((steps[-1] for steps, _ in curves.values()), default=0)
    if not {"tokens", "tokens_per_second"} <= curves.keys():
        return (name, f"{steps:,}", "", "")
    tokens, speeds = curves["tokens"][1], curves["tokens_per_second"][1]
    seconds = sum(read / speed for read, speed in zip(tokens, speeds) if speed)
    return (name, f"{steps:,}", f"{sum(tokens):,.0f}", str(datetime.timedelta(seconds=round(seconds))))
