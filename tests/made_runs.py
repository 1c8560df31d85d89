"""Run folders as `evaluate` makes them, with verdicts of the test's choice."""

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lema_jax import digests, records
from lema_jax.data.card import Card
from lema_jax.evidence.summary import summarize
from lema_jax.records import Prediction, Problem, Verdict

LETTERS = {
    "r": Verdict.RIGHT,
    "w": Verdict.WRONG,
    "u": Verdict.UNPARSED,
    "t": Verdict.TRUNCATED,
    "l": Verdict.PROMPT_TOO_LONG,
}


def problem(number: int, **fields: Any) -> Problem:
    given = {"id": f"arithmetic/test/{number}", "task": "arithmetic", "split": "test"}
    return Problem(**{**given, "question": f"What is {number} + 1?", "gold": str(number + 1), **fields})


def prediction(of: Problem, verdict: Verdict, checkpoint: str = "student", text: str | None = None) -> Prediction:
    said = f"It is {of.gold}." if verdict is Verdict.RIGHT else f"It is 0, says {checkpoint}."
    return Prediction(
        id=records.row_id(checkpoint=checkpoint, problem=of.id),
        problem=of,
        checkpoint=checkpoint,
        prompt=f"Question: {of.question}",
        text=said if text is None else text,
        answer={Verdict.RIGHT: of.gold, Verdict.WRONG: "0"}.get(verdict),
        verdict=verdict,
        prompt_tokens=20,
        completion_tokens=10,
    )


def predictions(letters: str, checkpoint: str = "student") -> list[Prediction]:
    """One prediction a letter: r(ight), w(rong), u(nparsed), t(runcated), l(ong prompt)."""
    return [prediction(problem(i), LETTERS[letter], checkpoint) for i, letter in enumerate(letters)]


def write(folder: Path, rows: Sequence[Prediction]) -> Path:
    records.write(folder / "predictions.jsonl", rows)
    (folder / "summary.json").write_text(json.dumps(dataclasses.asdict(summarize(rows))))
    return folder


def write_letters(folder: Path, letters: str) -> Path:
    return write(folder, predictions(letters, checkpoint=folder.name))


def drawn_letters(count: int, rate: float, seed: int) -> str:
    """Right with this rate, else wrong or, of ten, once unparsed; easy questions are the same for all seeds."""
    difficulty = random.Random(0)
    own = random.Random(seed)
    letters = []
    for _ in range(count):
        right = 0.7 * difficulty.random() + 0.3 * own.random() < rate
        letters.append("r" if right else "u" if own.random() < 0.1 else "w")
    return "".join(letters)


def write_study(
    folder: Path,
    rates: dict[str, float],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    tests: Sequence[str] = ("arithmetic/test",),
    questions: int = 100,
    **fields: Any,
) -> Path:
    """A study's folder: arms with their accuracies, the first the baseline; `student` has one seed.

    Trainings and data sets are there for every arm and seed; `fields` replace those of study.json.
    """
    evaluations, trainings, data, jobs = [], [], [], []
    for number, (arm, rate) in enumerate(rates.items()):
        for seed in seeds[:1] if arm == "student" else seeds:
            for test in tests:
                place = f"evaluate/{arm}-s{seed}-{test.replace('/', '-')}"
                (folder / place).mkdir(parents=True)
                letters = drawn_letters(questions, rate, 100 * number + seed)
                rows = [
                    prediction(problem(i), LETTERS[letter], checkpoint=f"{arm} {seed}")
                    for i, letter in enumerate(letters)
                ]
                write(folder / place, rows)
                evaluations.append({"arm": arm, "seed": seed, "test": test, "style": "paper", "folder": place})
            if arm != "student":
                _write_training(folder / f"train/{arm}-{seed}", seed)
                trainings.append({"arm": arm, "seed": seed, "folder": f"train/{arm}-{seed}"})
                _write_card(folder / f"data/{arm}-{seed}", corrections=arm.startswith("lema"))
                data.append({"arm": arm, "seed": seed, "folder": f"data/{arm}-{seed}"})
                job = {"id": f"{number}{seed}", "kind": "train", "name": f"train {arm} seed {seed}", "state": "done"}
                jobs.append({**job, "seconds": 60.0, "tokens": 1000, "usd": 0.0, "error": ""})
    content = {
        "task": "arithmetic",
        "baseline": next(iter(rates)),
        "arms": [arm for arm in rates if arm != "student"],
        "seeds": list(seeds),
        "tests": list(tests),
        "evaluations": evaluations,
        "trainings": trainings,
        "data": data,
        "jobs": jobs,
        "config": {},
    }
    (folder / "study.json").write_text(json.dumps(content | fields))
    return folder


def _write_training(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    lines = [{"step": step, "loss": 2.0 / step + 0.01 * seed, "tokens": 100} for step in range(1, 21)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_card(folder: Path, *, corrections: bool) -> None:
    folder.mkdir(parents=True)
    kinds = {"cot": 72, "correction": 28} if corrections else {"cot": 100}
    fields: dict[str, Any] = {field.name: {} for field in dataclasses.fields(Card)}
    made = Card(**(fields | {"left_out": {"cot": [["duplicate", 3]]}, "kinds": kinds}))
    content = dataclasses.asdict(made)
    (folder / "card.json").write_text(json.dumps(content | {"sha256": digests.hashed(content)}))
