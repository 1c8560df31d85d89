"""Shows what was measured: runs compared on the same questions, corrections audited, paths scored.

Reads   folders that `evaluate` made (`predictions.jsonl`, `summary.json`), `correct`'s corrections.jsonl, or
        `evaluate --score`'s scores.jsonl.
Writes  tables, what they mean, and a few answers to read, to the terminal; with --out, one HTML page that opens from
        disk.

  python -m lema_jax.report --runs=runs/cot/test,runs/lema/test --names=cot,lema --out=report.html
  python -m lema_jax.report --by_task --runs=cot/gsm8k,cot/svamp,lema/gsm8k,lema/svamp --names=cot,cot,lema,lema
  python -m lema_jax.report --corrections=runs/corrections.jsonl --out=corrections.html
  python -m lema_jax.report --scores=runs/scores/cot/scores.jsonl,runs/scores/lema/scores.jsonl

Runs that share a name are training seeds of one arm: --names=cot,cot,lema,lema.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lema_jax import cli, records, storage
from lema_jax.data import card
from lema_jax.errors import UserError
from lema_jax.evidence import ablation, audit, compare, curves, page, perplexity, runs, table
from lema_jax.records import Correction, PathScore

_RUNS = cli.define_paths("runs", [], "folders made by evaluate, all on the same questions")
_CORRECTIONS = flags.DEFINE_string("corrections", None, "a file made by correct, to audit")
_SCORES = cli.define_paths("scores", [], "files made by evaluate --score: the perplexity of right and wrong paths")
_NAMES = flags.DEFINE_list(
    "names", [], "a name for each run (its folder's name if none are given); equal names are seeds of one arm"
)
_BASELINE = flags.DEFINE_string("baseline", None, "the name to compare the others with (the first if not given)")
_DEV = cli.define_paths("dev", [], "the same checkpoints evaluated on dev, in the order of --runs: chooses one of them")
_BY_TASK = flags.DEFINE_bool("by_task", False, "the runs are of several tasks: arms down, tasks across")
_TRAINING = cli.define_paths("training", [], "folders made by train, whose curves the page shall show")
_DATA = cli.define_paths("data", [], "folders made by build_data, whose filters the page shall count")
_OUT = flags.DEFINE_string("out", None, "where to write the HTML page")
_SHOW = flags.DEFINE_integer(
    "show", 3, "how many questions to show with both answers, for each comparison", lower_bound=0
)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; lists are separated by commas, without spaces")
    if [bool(_RUNS.value), bool(_CORRECTIONS.value), bool(_SCORES.value)].count(True) != 1:
        raise UserError("give either --runs=folder,folder, --corrections=file or --scores=file,file")
    if _SCORES.value:
        _tell_apart()
    elif _CORRECTIONS.value:
        _audit(Path(_CORRECTIONS.value))
    elif _BY_TASK.value:
        _compare_by_task()
    else:
        _compare()


def _audit(path: Path) -> None:
    found = audit.load(path)
    print(audit.text(found))
    if _OUT.value:
        _write(Path(_OUT.value), audit.html(found, records.read(path, Correction), path.name))


def _tell_apart() -> None:
    if _OUT.value:
        raise UserError("--scores is told in the terminal alone; leave --out away")
    for path, name in zip(_SCORES.value, _names(_SCORES.value, _NAMES.value)):
        print(perplexity.sentence(perplexity.delta_ppl(records.read(path, PathScore)), name))


def _compare_by_task() -> None:
    if not _NAMES.value:
        raise UserError("--by_task needs --names: the arm that each of the --runs belongs to")
    names = _names(_RUNS.value, _NAMES.value)
    baseline = _baseline(names)
    results = ablation.by_task([runs.load(Path(folder), name) for folder, name in zip(_RUNS.value, names)], baseline)
    print(table.text_table(*ablation.layout(results)))
    print(f"\n{ablation.NOTE}")
    if _OUT.value:
        _write(Path(_OUT.value), page.tasks_page(results, baseline))


def _compare() -> None:
    names = _names(_RUNS.value, _NAMES.value)
    loaded = runs.align([runs.load(Path(folder), name) for folder, name in zip(_RUNS.value, names)])
    arms = compare.arms(loaded)
    baseline = arms[[arm.name for arm in arms].index(_baseline(names))]
    comparisons = {arm.name: compare.compare(baseline, arm) for arm in arms if arm is not baseline}
    print(table.text_table(*table.layout(arms, comparisons)))
    for comparison in comparisons.values():
        print(f"\n{table.sentence(comparison)}")
    if together := table.several(list(comparisons.values())):
        print(f"\n{together}")
    choice = ""
    if _DEV.value:
        devs = [runs.load(Path(folder), name) for folder, name in zip(_DEV.value, names)]
        choice = table.choice(runs.choose(loaded, devs))
        print(f"\n{choice}")
    for comparison in comparisons.values():
        if shown := table.examples(comparison, _SHOW.value):
            print(f"\n{shown}")
    if _OUT.value:
        training = {name: curves.read(Path(f)) for name, f in zip(_bare_names(_TRAINING.value), _TRAINING.value)}
        funnels = {name: _funnel(Path(f)) for name, f in zip(_bare_names(_DATA.value), _DATA.value)}
        made = page.runs_page(arms, comparisons, baseline=baseline, choice=choice, training=training, funnels=funnels)
        _write(Path(_OUT.value), made)


def _funnel(folder: Path) -> dict[str, int]:
    """What each filter of a data set left out, and what remained."""
    made = card.read(folder)
    if made is None:
        raise UserError(f"--data: {folder} has no card.json; is it a folder that build_data made?")
    left_out = {f"{pool}: {why}": n for pool, reasons in made.left_out.items() for why, n in reasons}
    return left_out | {f"trained on: {kind}": n for kind, n in made.kinds.items()}


def _names(folders: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    if not names:
        return _bare_names(folders)
    if len(names) != len(folders):
        raise UserError(f"--names has {len(names)} names for {len(folders)} folders or files; give one for each")
    return names


def _bare_names(folders: Sequence[str]) -> Sequence[str]:
    """The last part of the paths that tells all folders apart (`cot` and `lema` of a/cot/test, a/lema/test)."""
    parts = [Path(folder).parts[::-1] for folder in folders]
    for candidates in zip(*parts):
        if len(set(candidates)) == len(candidates):
            return candidates
    return folders


def _write(path: Path, html: str) -> None:
    try:
        storage.write(path, html)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from None
    print(f"\nThe page is at {path}")


def _baseline(names: Sequence[str]) -> str:
    name = names[0] if _BASELINE.value is None else _BASELINE.value
    if name not in names:
        raise UserError(f"--baseline={name} is none of the runs: {', '.join(dict.fromkeys(names))}")
    return name


if __name__ == "__main__":
    cli.run(main, out=lambda: _OUT.value)
