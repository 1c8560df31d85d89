"""The results of a study: every arm on every test, compared, with what it took; read from its folder."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.evidence import compare, contrasts, curves, equations, manifest, runs, stats
from lema_jax.evidence.compare import Arm, Comparison
from lema_jax.evidence.contrasts import Contrast
from lema_jax.evidence.curves import Curve
from lema_jax.evidence.equations import Counts
from lema_jax.evidence.manifest import STUDENT, Manifest


@dataclass(frozen=True)
class Tested:
    """One test: its arms by name, and their comparisons with the baseline; none while the baseline's is missing.

    The arms have no runs: of a large study the answers do not fit into memory. `equations` are counts of what
    the answers compute.
    """

    arms: dict[str, Arm]
    comparisons: dict[str, Comparison]
    contrasts: dict[Contrast, Comparison]
    equations: dict[str, Counts]


@dataclass(frozen=True)
class Study:
    """A study's results.

    Attributes:
      adjusted: p-values after Holm's correction over the comparisons of all arms on all tests, by (test, arm).
      adjusted_contrasts: the same over all contrasts, by (test, name).
      planned: how many comparisons of arms the study shall have, those that are not finished among them.
      shares: by recipe, arms that differ in the share of corrections (`contrasts.shares`).
      curves: of each training, by (arm, seed).
      funnels: of each arm's data set, rows that each filter left out and that remained.
      unread: what the folder should have and has not.
    """

    folder: Path
    manifest: Manifest
    tests: dict[str, Tested]
    adjusted: dict[tuple[str, str], float]
    adjusted_contrasts: dict[tuple[str, str], float]
    planned: int
    shares: dict[str, dict[str, float]]
    curves: dict[tuple[str, int], dict[str, Curve]]
    funnels: dict[str, dict[str, int]]
    unread: tuple[str, ...]

    @property
    def arms(self) -> list[str]:
        """The names of the arms that have results: as planned, the student last."""
        names = {name for tested in self.tests.values() for name in tested.arms}
        return [name for name in (*self.manifest.arms, STUDENT) if name in names]

    @property
    def subject(self) -> str | None:
        """The arm that the study is about: lema, else lema with a share or another form, else the first there is."""
        others = [name for name in self.arms if name not in (self.manifest.baseline, STUDENT)]
        return min(others, key=lambda name: (name != "lema", not name.startswith("lema")), default=None)


def load(folder: Path | str, funnel: Callable[[Path], dict[str, int]]) -> Study:
    """The results in a study's folder, as far as it has come.

    Args:
      funnel: the counts of a data set's folder at each filter, and of each kind trained on (`data.card.funnel`).

    Raises:
      UserError: no `study.json`, or a malformed one; an evaluation that it lists and that cannot be read, or answers
        other questions than the others on its test.
    """
    folder = Path(folder)
    made = manifest.read(folder)
    tests = {}
    for name in made.tests:
        read = {arm.name: (arm, counts) for arm, counts in _arms(folder, made, name)}
        if read:
            tests[name] = _tested({arm: read[arm] for arm in (*made.arms, STUDENT) if arm in read}, made.baseline)
    funnels, measured, unread = {}, {}, []
    for data in made.data:
        if data.arm not in funnels:
            try:
                funnels[data.arm] = funnel(folder / data.folder)
                measured[data.arm] = _share(funnels[data.arm])
            except UserError as error:
                unread.append(str(error))
    trained = {}
    for training in made.trainings:
        try:
            trained[training.arm, training.seed] = curves.read(folder / training.folder)
        except UserError as error:
            unread.append(str(error))
    planned = len(made.tests) * (len(made.arms) - 1 + _asks_student(made))
    return Study(
        folder,
        made,
        tests,
        adjusted=_holm(
            {(t, arm): one.p for t, of in tests.items() for arm, one in of.comparisons.items()},
            planned,
        ),
        adjusted_contrasts=_holm(
            {(t, of.name): one.p for t, x in tests.items() for of, one in x.contrasts.items()},
            len(made.tests) * len(contrasts.of(made.arms)),
        ),
        planned=planned,
        shares=contrasts.shares(made.arms, made.baseline, measured),
        curves=trained,
        funnels=funnels,
        unread=tuple(unread),
    )


def answers(study: Study, arm: str, test: str) -> runs.Run:
    """The answers of the arm's first seed, read again; in the order of the test's arms.

    Raises:
      UserError: the arm has no evaluation on this test, or it cannot be read.
    """
    of = [one for one in study.manifest.evaluations if one.test == test]
    first = next((one for one in of if one.arm == arm), None)
    if first is None:
        raise UserError(f"{study.folder} has no evaluation of {arm} on {test}; run study to finish it")
    return runs.load(study.folder / first.folder, arm)


def _arms(folder: Path, made: Manifest, test: str) -> Iterator[tuple[Arm, Counts]]:
    """The arms of one test, all on the questions of the first; one arm's answers in memory at a time."""
    reference, evaluations = None, [one for one in made.evaluations if one.test == test]
    for name in dict.fromkeys(one.arm for one in evaluations):
        loaded = [runs.load(folder / one.folder, name) for one in evaluations if one.arm == name]
        reference = reference or loaded[0]
        (arm,) = compare.arms(runs.align([reference, *loaded])[1:])
        yield dataclasses.replace(arm, runs=()), equations.of([one for run in loaded for one in run.answers])


def _tested(read: Mapping[str, tuple[Arm, Counts]], baseline: str) -> Tested:
    arms = {name: arm for name, (arm, _) in read.items()}
    others = [arm for name, arm in arms.items() if name != baseline] if baseline in arms else []
    compared = {arm.name: compare.compare(arms[baseline], arm) for arm in others}
    return Tested(arms, compared, contrasts.found(arms), {name: counts for name, (_, counts) in read.items()})


def _asks_student(made: Manifest) -> bool:
    planned = (job.name.partition(" ")[0] for job in made.jobs if job.kind == "evaluate")
    return STUDENT in planned or any(one.arm == STUDENT for one in made.evaluations)


def _holm(p_values: Mapping[tuple[str, str], float], planned: int) -> dict[tuple[str, str], float]:
    """Corrected for all comparisons that are planned: those that are not finished count as if they showed nothing."""
    unfinished = [1.0] * (planned - len(p_values))
    return dict(zip(p_values, stats.holm([*p_values.values(), *unfinished])))


def _share(counts: Mapping[str, int]) -> float:
    """The share of the arm's own examples, such as corrections, in what was trained on."""
    trained = {name: count for name, count in counts.items() if name.startswith("trained on: ")}
    return 1 - trained.get("trained on: cot", 0) / max(1, sum(trained.values())) if trained else 0.0
