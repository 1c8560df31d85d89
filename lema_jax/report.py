"""Shows what was measured: runs compared on the same questions, corrections audited, paths scored.

Reads   folders that `evaluate` made (`predictions.jsonl`, `summary.json`), a study's folder, `sample`'s
        attempts.jsonl, `correct`'s corrections.jsonl, a data set of `build_data`, or `evaluate --score`'s scores.jsonl.
Writes  tables, what they mean, and a few answers to read, to the terminal; with --out, one HTML page that opens from
        disk.

  python -m lema_jax.report --runs=runs/cot/test,runs/lema/test --names=cot,lema --out=report.html
  python -m lema_jax.report --by_task --runs=cot/gsm8k,cot/svamp,lema/gsm8k,lema/svamp --names=cot,cot,lema,lema
  python -m lema_jax.report --sensitivity --runs=runs/base/chat,runs/base/few_shot,runs/base/paper
  python -m lema_jax.report --runs=runs/lema/gsm8k --pair=runs/lema/gsm_plus
  python -m lema_jax.report --study=runs/study --out=study.html
  python -m lema_jax.report --attempts=runs/attempts.jsonl --out=attempts.html
  python -m lema_jax.report --data=runs/data_lema --out=data.html
  python -m lema_jax.report --corrections=runs/corrections.jsonl --out=corrections.html
  python -m lema_jax.report --scores=runs/scores/cot/scores.jsonl,runs/scores/lema/scores.jsonl

Runs that share a name are training seeds of one arm: --names=cot,cot,lema,lema.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lema_jax import cli, records, stage, storage
from lema_jax.data import card, curate, examples
from lema_jax.errors import UserError
from lema_jax.evidence import (
    ablation,
    attempts,
    audit,
    compare,
    contamination,
    curves,
    data_set,
    page,
    perplexity,
    runs,
    sensitivity,
    study,
    table,
)
from lema_jax.evidence.attempts import Fact
from lema_jax.evidence.audit import Audit
from lema_jax.evidence.compare import Arm, Comparison
from lema_jax.evidence.contamination import Part
from lema_jax.evidence.perplexity import DeltaPpl
from lema_jax.evidence.sensitivity import Sensitivity
from lema_jax.evidence.study import Study
from lema_jax.records import Attempt, Correction, Example, PathScore
from lema_jax.stage import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` reports: one of `runs`, `study`, `attempts`, `corrections`, `scores`, and `data` alone."""

    runs: Sequence[Path | str] = option(
        (), "Folders of evaluate to compare, all on the same questions, separated by commas.", paths=True
    )
    study: Path | str | None = option(
        None, "Folder of a study, finished or not: its arms on its tests over its seeds, and what it cost."
    )
    attempts: Path | str | None = option(None, "File of attempts of sample, to count and to read.")
    corrections: Path | str | None = option(None, "File of corrections of correct, to audit and to read.")
    scores: Sequence[Path | str] = option(
        (), "Files of evaluate --score: the perplexity of right and of wrong reasoning paths.", paths=True
    )
    names: Sequence[str] = option(
        (),
        "Name of each of the runs or scores, by default its folder's; runs of one name are training seeds of one arm.",
    )
    baseline: str | None = option(
        None, "Name of the run that the others are compared with; by default the first one's."
    )
    dev: Sequence[Path | str] = option(
        (),
        "Folders of the same checkpoints evaluated on dev, in the order of --runs; the best on dev is chosen.",
        paths=True,
    )
    pair: Sequence[Path | str] = option(
        (),
        "Folders of the same checkpoints on another test, in the order of --runs: the differences, as of GSM8K and "
        "GSM1k or GSM-Plus.",
        paths=True,
    )
    sensitivity: bool = option(
        False, "Show runs of one checkpoint asked in several prompt styles in one table: styles down, graders across."
    )
    by_task: bool = option(False, "Show runs of several tasks in one table: arms down, tasks across.")
    training: Sequence[Path | str] = option((), "Folders of train, whose curves the page of --runs shows.", paths=True)
    data: Sequence[Path | str] = option(
        (),
        "With --runs, data sets of build_data that they were trained on: accuracy on overlapping and other questions "
        "apart, and filters counted on the page; alone, one data set to read.",
        paths=True,
    )
    out: Path | str | None = option(None, "File of the HTML page to write; by default only the terminal is written to.")
    show: int = option(3, "Questions to print with both answers for each comparison of --runs.", low=0)

    def problems(self) -> list[str]:
        return list(self._contradictions())

    def _contradictions(self) -> Iterator[str]:
        subjects = (self.runs, self.study, self.attempts, self.corrections, self.scores)
        given = [bool(one) for one in subjects].count(True)
        if given != 1 and (given or not self.data):
            yield (
                "give either --runs=folder,folder, --study=folder, --attempts=file, --corrections=file, --data=folder "
                "or --scores=file,file"
            )
            return
        of_runs = ("names", "baseline", "dev", "by_task", "pair", "sensitivity", "training", "data")
        if given and not self.runs and (other := self._of_runs(*of_runs)):
            yield f"--{other} is of --runs; leave it out"
        if self.by_task and self.runs and (other := self._of_runs("dev", "training", "data")):
            yield f"--{other} is of runs of one task, not of --by_task; leave it out"
        if not given and len(self.data) > 1:
            yield f"--data={','.join(map(str, self.data))} without --runs: a page shows one data set; give one folder"
        if self.scores and self.out:
            yield "--scores is printed, and has no page; leave --out out"
        if self.by_task and self.runs and not self.names:
            yield "--by_task needs --names: the arm that each of the --runs belongs to"
        if self.sensitivity and not self.study:
            others = [one for one in of_runs if one != "sensitivity" and getattr(self, one)]
            if not self.runs or others or self.out:
                what = "only runs, and no page; leave the other options out"
                yield f"--sensitivity takes --runs=folder,folder of one checkpoint: {what}"
        if self.pair and (not self.runs or len(self.pair) != len(self.runs) or self.by_task):
            yield f"--pair has {len(self.pair)} folders for {len(self.runs)} of --runs; give one each, and no --by_task"
        named = self.runs or self.scores
        if named and self.names and len(self.names) != len(named):
            yield f"--names has {len(self.names)} names for {len(named)} folders or files; give one for each"

    def _of_runs(self, *names: str) -> str | None:
        """The first of these options that is given; `names` is of scores too."""
        return next((name for name in names if getattr(self, name) and not (name == "names" and self.scores)), None)


@dataclasses.dataclass(frozen=True)
class Result:
    """What was measured of what the config names; the rest is empty.

    Attributes:
      arms, comparisons: of --runs; comparisons by the arm's name, the baseline has none.
      choice: the checkpoint that --dev chooses.
      overlap: accuracy on questions that overlap with --data, and on others.
      pairs: accuracy on --runs and on --pair.
      sensitivity: of --sensitivity.
      by_task: of --by_task, by `task/split`.
      study: the results of --study.
      attempts, data: what counts of each attempt, or of each example.
      corrections: the audit.
      scores: ΔPPL of each of --scores, with its name.
      page: the HTML page, where one was asked for.
    """

    arms: Sequence[Arm] = ()
    comparisons: Mapping[str, Comparison] = dataclasses.field(default_factory=dict)
    choice: runs.Choice | None = None
    overlap: Sequence[Part] = ()
    pairs: Sequence[Part] = ()
    sensitivity: Sensitivity | None = None
    by_task: Mapping[str, ablation.Result] = dataclasses.field(default_factory=dict)
    study: Study | None = None
    attempts: Sequence[Fact] = ()
    data: Sequence[data_set.Fact] = ()
    corrections: Audit | None = None
    scores: Sequence[tuple[str, DeltaPpl]] = ()
    page: Path | None = None


@stage.function
def run(config: Config) -> Result:
    """Measures what the config names, prints it, and writes its page.

    Raises:
      UserError: a config that contradicts itself; files that are missing, malformed or empty; runs that answer
        different questions; a page that cannot be written.
    """
    if config.scores:
        return _delta_ppl(config)
    if config.study:
        return _study(config, Path(config.study))
    if config.attempts:
        return _attempts(config, Path(config.attempts))
    if config.corrections:
        return _corrections(config, Path(config.corrections))
    if not config.runs:
        return _data(config, Path(config.data[0]))
    if config.sensitivity:
        return _sensitivity(config)
    return _compare_by_task(config) if config.by_task else _compare(config)


def _delta_ppl(config: Config) -> Result:
    scores = []
    for path, name in zip(config.scores, _names(config.scores, config.names)):
        found = perplexity.delta_ppl(records.read(path, PathScore))
        print(perplexity.sentence(found, name))
        scores.append((name, found))
    return Result(scores=scores)


def _study(config: Config, folder: Path) -> Result:
    found = study.load(folder, card.funnel)
    print(study.text(found))
    return Result(study=found, page=_write_page(config.out, lambda: study.html(found)))


def _attempts(config: Config, path: Path) -> Result:
    found = attempts.load(path)
    print(attempts.text(found))
    html = lambda: attempts.html(found, records.read(path, Attempt), path.name)
    return Result(attempts=found, page=_write_page(config.out, html))


def _corrections(config: Config, path: Path) -> Result:
    found = audit.load(path)
    print(audit.text(found))
    html = lambda: audit.html(found, records.read(path, Correction), path.name)
    return Result(corrections=found, page=_write_page(config.out, html))


def _data(config: Config, folder: Path) -> Result:
    funnel, found = {why: count for why, count in card.funnel(folder).items() if count}, data_set.load(folder)
    made = card.read(folder)
    assert made is not None  # the funnel is its card's
    summary = card.summary(made)
    print(data_set.text(found, summary))
    tokens = functools.partial(_tokens, folder) if (folder / "tokenizer" / "tokenizer.json").is_file() else None

    def html() -> str:
        return data_set.html(
            found, data_set.examples(folder), folder.name, summary=summary, funnel=funnel, tokens=tokens
        )

    return Result(data=found, page=_write_page(config.out, html))


def _tokens(folder: Path, rows: Sequence[Example]) -> list[list[data_set.Token]]:
    """Each example's tokens as the trainer reads them, by the data set's own tokenizer."""
    # Here: transformers takes seconds to load, which no other report waits for.
    from lema_jax.data import encode, pairs, tokenizer

    read_by = tokenizer.load(folder)
    encoded = pairs.encode(rows, read_by, encode.Limits(None, None, None))
    return [
        [(str(read_by.decode([int(id)])), bool(weight)) for id, weight in zip(one.tokens, one.weights)]
        for one in encoded
        if one is not None
    ]


def _sensitivity(config: Config) -> Result:
    names = _names(config.runs, ())
    found = sensitivity.measure(runs.align([runs.load(Path(folder), name) for folder, name in zip(config.runs, names)]))
    print(sensitivity.text(found))
    return Result(sensitivity=found)


def _compare_by_task(config: Config) -> Result:
    baseline = _baseline(config, config.names)
    loaded = [runs.load(Path(folder), name) for folder, name in zip(config.runs, config.names)]
    results = ablation.by_task(loaded, baseline)
    print(table.text_table(*ablation.layout(results)))
    print("\n".join(("", ablation.NOTE, *filter(None, [ablation.several(results)]))))
    return Result(by_task=results, page=_write_page(config.out, lambda: page.tasks_page(results, baseline)))


def _compare(config: Config) -> Result:
    names = _names(config.runs, config.names)
    loaded = runs.align([runs.load(Path(folder), name) for folder, name in zip(config.runs, names)])
    arms = compare.arms(loaded)
    baseline = arms[[arm.name for arm in arms].index(_baseline(config, names))]
    comparisons = {arm.name: compare.compare(baseline, arm) for arm in arms if arm is not baseline}
    print(table.text_table(*table.layout(arms, comparisons)))
    for comparison in comparisons.values():
        print(f"\n{table.sentence(comparison)}")
    if together := table.several(comparisons):
        print(f"\n{together}")
    chosen = None
    if config.dev:
        chosen = runs.choose(loaded, [runs.load(Path(folder), name) for folder, name in zip(config.dev, names)])
        print(f"\n{table.choice(chosen)}")
    overlap, pairs = _overlap(config, arms), _pairs(config, names, arms)
    titled = {contamination.OVERLAP: contamination.rows(overlap), contamination.PAIRS: contamination.rows(pairs)}
    for title, rows in titled.items():
        if rows:
            print(f"\n{title}:\n\n{table.text_table(*table.filled(contamination.HEADER, rows))}")
    for comparison in comparisons.values():
        if shown := table.examples(comparison, config.show):
            print(f"\n{shown}")

    def html() -> str:
        return page.runs_page(
            arms,
            comparisons,
            baseline=baseline,
            choice=table.choice(chosen) if chosen else "",
            contamination=titled,
            training={name: curves.read(Path(f)) for name, f in zip(_own_names(config.training), config.training)},
            funnels={name: card.funnel(Path(f)) for name, f in zip(_own_names(config.data), config.data)},
        )

    path = _write_page(config.out, html)
    return Result(arms=arms, comparisons=comparisons, choice=chosen, overlap=overlap, pairs=pairs, page=path)


def _overlap(config: Config, arms: Sequence[Arm]) -> list[Part]:
    """Accuracy on the questions that overlap with --data, and on the others; empty without --data."""
    if not config.data:
        return []
    for folder in config.data:
        card.funnel(Path(folder))  # what is no data set is reported as such
    index = curate.Overlap(prediction.problem for prediction in arms[0].runs[0].predictions)
    questions = {examples.question(row) for folder in config.data for row in data_set.examples(Path(folder))}
    return contamination.by_overlap(arms, {id for question in questions for id in index.all(question)})


def _pairs(config: Config, names: Sequence[str], arms: Sequence[Arm]) -> list[Part]:
    """Accuracy on --runs and on --pair, arm by arm; empty without --pair."""
    if not config.pair:
        return []
    loaded = runs.align([runs.load(Path(folder), name) for folder, name in zip(config.pair, names)])
    others = {arm.name: arm for arm in compare.arms(loaded)}
    return [part for arm in arms for part in contamination.pair(arm, others[arm.name])]


def _names(folders: Sequence[Path | str], names: Sequence[str]) -> Sequence[str]:
    return names or _own_names(folders)


def _own_names(folders: Sequence[Path | str]) -> Sequence[str]:
    """The last part of the paths by which all of them differ (`cot` and `lema` of a/cot/test, a/lema/test)."""
    parts = [Path(folder).parts[::-1] for folder in folders]
    for candidates in zip(*parts):
        if len(set(candidates)) == len(candidates):
            return candidates
    return [os.fspath(folder) for folder in folders]


def _baseline(config: Config, names: Sequence[str]) -> str:
    name = names[0] if config.baseline is None else config.baseline
    if name not in names:
        raise UserError(f"--baseline={name} is none of the runs: {', '.join(dict.fromkeys(names))}")
    return name


def _write_page(out: Path | str | None, html: Callable[[], str]) -> Path | None:
    """Writes the page, where one was asked for, and prints its path."""
    if not out:
        return None
    path, text = Path(out), html()
    try:
        storage.write(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from None
    print(f"\nThe page is at {path}")
    return path


command = cli.Command("report", __doc__, Config, run)
if __name__ == "__main__":
    command.main()
