"""Run folders as `evaluate` makes them, with verdicts of the test's choice."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lema_jax import records
from lema_jax.evidence import stats
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
    (folder / "summary.json").write_text(json.dumps(dataclasses.asdict(stats.summarize(rows))))
    return folder


def write_letters(folder: Path, letters: str) -> Path:
    return write(folder, predictions(letters, checkpoint=folder.name))
