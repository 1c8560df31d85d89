"""Runs of `evaluate`: read, checked to be finished and of one task, and aligned by question."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lema_jax import records, tasks
from lema_jax.errors import UserError
from lema_jax.evidence.summary import Summary, by_question, summarize
from lema_jax.records import Prediction


@dataclass(frozen=True)
class Run:
    """One checkpoint's answers to one test set. Runs that share a `name` are training seeds of one arm.

    `predictions` are the first answers, one a question; `further` the second ones, the third, …, each in their order.
    """

    name: str
    folder: Path
    predictions: tuple[Prediction, ...]
    further: tuple[tuple[Prediction, ...], ...] = ()

    @property
    def samples(self) -> int:
        return 1 + len(self.further)

    @property
    def answers(self) -> tuple[Prediction, ...]:
        """All of them, sample by sample."""
        return tuple(one for sample in (self.predictions, *self.further) for one in sample)

    @property
    def summary(self) -> Summary:
        return summarize(self.answers)

    @property
    def task(self) -> str:
        return self.predictions[0].problem.task

    @property
    def prompt_style(self) -> str:
        return self.predictions[0].prompt_style


def load(folder: Path, name: str) -> Run:
    """The run in a folder that `evaluate` made (`predictions.jsonl`, `summary.json`).

    Raises:
      UserError: a missing, malformed or empty file; an unfinished evaluation; two tasks, or two answers to one
        question, in one run.
    """
    path = folder / "predictions.jsonl"
    if folder.is_dir() and not path.exists():
        raise UserError(f"{folder} has no {path.name}; name a folder that evaluate made")
    predictions = tuple(records.read(path, Prediction))
    if not predictions:
        raise UserError(f"{path} has no predictions; run evaluate again")
    named = sorted({prediction.problem.task for prediction in predictions})
    if len(set(map(_known_as, named))) > 1:
        raise UserError(f"{path} mixes the tasks {' and '.join(named)}; give each task a folder of its own")
    first: dict[tuple[str, int], Prediction] = {}
    for prediction in predictions:
        other = first.setdefault((prediction.problem.id, prediction.sample), prediction)
        if other is not prediction:
            raise UserError(
                f"{path}: question {prediction.problem.id} is answered twice, by rows {other.id} ({other.checkpoint}) "
                f"and {prediction.id} ({prediction.checkpoint}); give each checkpoint a folder of its own"
            )
    _check_finished(folder, len(predictions))
    one, *further = zip(*by_question(predictions))
    return Run(name, folder, one, tuple(further))


def _known_as(task: str) -> str:
    """A user's own task without the folder of its file, which may be another elsewhere; questions are compared too."""
    return tasks.OWN + Path(task.removeprefix(tasks.OWN)).name if task.startswith(tasks.OWN) else task


def _check_finished(folder: Path, rows: int) -> None:
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        n = summary["n"] * summary.get("samples", 1)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; evaluate writes it at its end, so run it again to finish {folder}"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f'{path} is not a summary that evaluate wrote: no field "n"; run evaluate again') from None
    if n != rows:
        raise UserError(f"{path} counts {n} answers, {folder / 'predictions.jsonl'} has {rows}; run evaluate again")


def align(runs: Sequence[Run]) -> list[Run]:
    """The runs with their predictions in the order of the first one's.

    Raises:
      UserError: another task, other questions, or a question whose text or gold answer differs.
    """
    reference = runs[0]
    return [reference, *(_aligned(run, reference) for run in runs[1:])]


def _aligned(run: Run, reference: Run) -> Run:
    here, there = run.folder, reference.folder
    if _known_as(run.task) != _known_as(reference.task):
        raise UserError(f"{here} answers {run.task!r}, {there} answers {reference.task!r}: compare runs of one task")
    answered = {prediction.problem.id: prediction for prediction in run.predictions}
    wanted = [prediction.problem for prediction in reference.predictions]
    missing = [problem.id for problem in wanted if problem.id not in answered]
    extra = answered.keys() - {problem.id for problem in wanted}
    if missing or extra:
        only = [f"{len(missing)} only in {there} (such as {missing[0]})"] if missing else []
        only += [f"{len(extra)} only in {here} (such as {min(extra)})"] if extra else []
        raise UserError(f"{there} and {here} answer different questions: {'; '.join(only)}; evaluate both on the same")
    for problem in wanted:
        other = answered[problem.id].problem
        for field in ("question", "choices", "gold"):
            if getattr(other, field) != getattr(problem, field):
                raise UserError(
                    f"question {problem.id} has another {field} in {there} ({getattr(problem, field)!r:.120}) than in "
                    f"{here} ({getattr(other, field)!r:.120}); evaluate both on the same data"
                )
    order = {prediction.problem.id: number for number, prediction in enumerate(run.predictions)}
    ordered = lambda answers: tuple(answers[order[problem.id]] for problem in wanted)
    return replace(run, predictions=ordered(run.predictions), further=tuple(map(ordered, run.further)))


@dataclass(frozen=True)
class Choice:
    """Of several checkpoints, the best on dev, and the best on test."""

    chosen: Run
    on_dev: Summary
    on_test: Summary
    best_on_test: Run
    best_test: Summary


def choose(tests: Sequence[Run], devs: Sequence[Run]) -> Choice:
    """Chooses a checkpoint by its dev accuracy (the first of equals) and reports it on test.

    `devs[i]` is the checkpoint of `tests[i]` on held-out training questions. The result also has the best accuracy on
    test, which is the paper's rule; it is optimistic, since it chooses by the questions that it reports.

    Raises:
      UserError: not one dev run for each test run, or a pair of two different checkpoints or of one set of questions.
    """
    if len(tests) != len(devs):
        raise UserError(f"{len(devs)} runs on dev for {len(tests)} on test; give one for each, in the same order")
    for test, dev in zip(tests, devs):
        if test.predictions[0].checkpoint != dev.predictions[0].checkpoint:
            raise UserError(
                f"{dev.folder} is of checkpoint {dev.predictions[0].checkpoint}, {test.folder} of "
                f"{test.predictions[0].checkpoint}: name dev and test runs in the same order"
            )
        questions = {prediction.problem.question for prediction in test.predictions}
        if shared := sum(prediction.problem.question in questions for prediction in dev.predictions):
            raise UserError(
                f"{dev.folder} shares {shared} questions with {test.folder}; choose on others than you report"
            )
    on_dev = [run.summary for run in devs]
    on_test = [run.summary for run in tests]
    chosen = max(range(len(tests)), key=lambda i: on_dev[i].accuracy)
    best = max(range(len(tests)), key=lambda i: on_test[i].accuracy)
    return Choice(tests[chosen], on_dev[chosen], on_test[chosen], tests[best], on_test[best])
