"""The table of an ablation, as in the paper: arms down, tasks across."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lema_jax.evidence import compare, runs, table
from lema_jax.evidence.compare import Arm, Comparison
from lema_jax.evidence.runs import Run

NOTE = (
    "In brackets: points more than the baseline on the same questions; * where significant at the 5 % level, "
    "† where the prompts differ from the baseline's."
)


@dataclass(frozen=True)
class Result:
    """One task's arms by name, and their comparisons with the baseline; none where the baseline lacks the task."""

    arms: dict[str, Arm]
    comparisons: dict[str, Comparison]


def by_task(loaded: Sequence[Run], baseline: str) -> dict[str, Result]:
    """The results of runs of several tasks, by `task/split`; each task's runs are aligned and compared.

    Raises:
      UserError: runs of one task and split on different questions.
    """
    parts: dict[str, list[Run]] = {}
    for run in loaded:
        parts.setdefault(f"{run.task}/{run.predictions[0].problem.split}", []).append(run)
    results = {}
    for name, part in parts.items():
        arms = {arm.name: arm for arm in compare.arms(runs.align(part))}
        others = [arm for arm in arms.values() if arm.name != baseline] if baseline in arms else []
        results[name] = Result(arms, {arm.name: compare.compare(arms[baseline], arm) for arm in others})
    return results


def layout(results: Mapping[str, Result]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: one row an arm, one column a task, cells such as `83.5 (+2.1*)`; `–` where there is no run."""
    names = dict.fromkeys(name for result in results.values() for name in result.arms)
    header = ("run", *(f"{task} (n={next(iter(r.arms.values())).questions:,})" for task, r in results.items()))
    return header, [(name, *(_cell(result, name) for result in results.values())) for name in names]


def _cell(result: Result, name: str) -> str:
    if name not in result.arms:
        return "–"
    accuracy = f"{100 * result.arms[name].accuracy:.1f}"
    if name not in result.comparisons:
        return accuracy
    comparison = result.comparisons[name]
    marks = "*" * comparison.significant + "†" * bool(comparison.reworded)
    return f"{accuracy} ({table.points(comparison.difference)}{marks})"


def several(results: Mapping[str, Result]) -> str:
    """What remains significant of all arms × tasks after Holm's correction (`table.several`)."""
    return table.several(
        {f"{name} on {task}": one for task, result in results.items() for name, one in result.comparisons.items()}
    )
