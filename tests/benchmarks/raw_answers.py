"""The answers of a study in one small file, and what they say: without texts, so that anyone can check the tables.

    python -m tests.benchmarks.raw_answers --study=runs/study --out=answers.jsonl.xz
    python -m tests.benchmarks.raw_answers --read=answers.jsonl.xz [--baseline=cot] [--plot=differences.svg]

The file has a line for each test (ids of its questions, and what names their clusters) and one for each arm and seed
(its answers and verdicts, in the order of the ids). --read compares the arms as `report --study` does, and --plot draws
their differences to the baseline.
"""

import argparse
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lema_jax.evidence import charts, compare, manifest, runs, stats, table
from lema_jax.evidence.clusters import MADE_FROM
from lema_jax.records import Prediction, Problem, Verdict


def pack(study: Path, out: Path) -> int:
    """Writes the answers of a study; returns how many there are.

    Raises:
      UserError: an evaluation that cannot be read, or answers other questions than the first one on its test.
    """
    made, count = manifest.read(study), 0
    first: dict[str, runs.Run] = {}
    with lzma.open(out, "wt", encoding="utf-8", preset=9) as file:
        for one in made.evaluations:
            run = runs.load(study / one.folder, one.arm)
            if one.test not in first:
                first[one.test] = run
                problems = [row.problem for row in run.predictions]
                meta = [{name: p.meta[name] for name in MADE_FROM if name in p.meta} for p in problems]
                task = {"task": problems[0].task, "split": problems[0].split}
                _line(file, test=one.test, baseline=made.baseline, **task, ids=[p.id for p in problems], meta=meta)
            rows = runs.align([first[one.test], run])[1].predictions
            answers, verdicts = [row.answer for row in rows], [row.verdict.value for row in rows]
            about = {"checkpoint": rows[0].checkpoint, "style": rows[0].prompt_style}
            _line(file, of=one.test, arm=one.arm, seed=one.seed, **about, answers=answers, verdicts=verdicts)
            count += len(rows)
    return count


def _line(file: Any, **content: Any) -> None:
    file.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def read(path: Path) -> Iterator[tuple[str, str, list[runs.Run]]]:
    """Of each test in the file: its name, the baseline, and the runs, which have no texts."""
    tests: dict[str, dict[str, Any]] = {}
    found: dict[str, list[runs.Run]] = {}
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in map(json.loads, file):
            if "test" in line:
                tests[line["test"]] = line
            else:
                found.setdefault(line["of"], []).append(_run(line, tests[line["of"]]))
    for name, test in tests.items():
        yield name, test["baseline"], found[name]


def _run(line: dict[str, Any], test: dict[str, Any]) -> runs.Run:
    of = {"task": test["task"], "split": test["split"], "question": "", "gold": ""}
    rows = [
        Prediction(
            id=f"{id}/{line['arm']}/{line['seed']}",
            problem=Problem(id=id, meta=meta, **of),
            checkpoint=line["checkpoint"],
            prompt="",
            prompt_style=line["style"],
            text="",
            answer=answer,
            verdict=Verdict(verdict),
            prompt_tokens=0,
            completion_tokens=0,
        )
        for id, meta, answer, verdict in zip(test["ids"], test["meta"], line["answers"], line["verdicts"])
    ]
    return runs.Run(line["arm"], Path(f"seed {line['seed']}"), tuple(rows))


def compared(path: Path, than: str | None = None) -> Iterator[tuple[str, compare.Arm, compare.Comparison | None]]:
    """Of each test in the file: its name, each arm, and the arm's comparison with the baseline, which has none.

    Args:
      than: the baseline; the study's own by default.
    """
    for test, baseline, found in read(path):
        baseline = than or baseline
        arms = {arm.name: arm for arm in compare.arms(found)}
        for name, arm in arms.items():
            yield test, arm, None if name == baseline else compare.compare(arms[baseline], arm)


def table_of(path: Path, than: str | None = None) -> list[tuple[str, ...]]:
    """Test, arm, accuracy, that of each seed, difference to the baseline, its interval, p, and Holm's p of all."""
    rows, p_values = [], []
    for test, arm, one in compared(path, than):
        seeds = " ".join(table.percent(float(share)) for share in arm.right.mean(axis=1))
        rows.append((test, arm.name, table.percent(arm.accuracy), seeds, one))
        p_values += [] if one is None else [one.p]
    adjusted = iter(stats.holm(p_values))
    measured = lambda one: (
        (table.points(one.difference), table.points_span(one.interval), table.p_value(one.p)) if one else ("", "", "")
    )
    return [(*row, *measured(one), table.p_value(next(adjusted)) if one else "") for *row, one in rows]


def plot(path: Path, than: str | None = None) -> str:
    """Each arm's difference to the baseline on each test with its interval, as an SVG."""
    rows = [
        (f"{arm.name}, {test.rpartition('/')[2]}", one.difference, one.interval)
        for test, arm, one in compared(path, than)
        if one is not None
    ]
    colours = {label: number for number, (label, *_) in enumerate(rows, start=1)}
    return charts.alone(charts.intervals(rows, "points more than the baseline", colours, zero=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--study", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--baseline", help="arm that the others are compared with; the study's own by default")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    if given.read:
        print("\n".join(" | ".join(row) for row in table_of(given.read, given.baseline)))
        if given.plot:
            given.plot.write_text(plot(given.read, given.baseline))
    elif given.study and given.out:
        print(f"{pack(given.study, given.out):,} answers, {given.out.stat().st_size:,} bytes")
    else:
        parser.error("give --study and --out, or --read")


if __name__ == "__main__":
    main()
