"""A run in the file formats of lm-evaluation-harness, for tools that read those.

    results_<date>.json            the accuracy, and what was run
    samples_<task>_<date>.jsonl    one line a question

`exact_match` is the verdict of this package's grader, `paper` that of the official one. A task `jsonl:PATH` has the
name of its file. Writing a run again replaces its files.
"""

import datetime
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lema_jax import storage
from lema_jax.evidence import clusters, crossed
from lema_jax.evidence.summary import summarize
from lema_jax.records import Prediction, Verdict

_METRIC, _PAPER = "exact_match", "paper"


def write(folder: Path, predictions: Sequence[Prediction]) -> None:
    """Writes both files of one run (one task, one checkpoint, at least one prediction) into `folder`."""
    task = _name(predictions[0].problem.task)
    before = sorted(folder.glob(f"samples_{task}_*.jsonl"))
    stamp = before[-1].stem.rpartition("_")[2] if before else datetime.datetime.now().isoformat().replace(":", "-")
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in samples(predictions))
    storage.write(folder / f"samples_{task}_{stamp}.jsonl", lines)
    storage.write(
        folder / f"results_{stamp}.json", json.dumps(results(predictions), indent=2, ensure_ascii=False) + "\n"
    )


def samples(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The harness's sample of each prediction; without an extracted answer the filtered response is empty."""
    return [_sample(number, prediction) for number, prediction in enumerate(predictions)]


def _sample(number: int, prediction: Prediction) -> dict[str, Any]:
    doc = prediction.problem.model_dump(mode="json")
    metrics = {_METRIC: float(prediction.verdict is Verdict.RIGHT)}
    if prediction.paper is not None:
        metrics[_PAPER] = float(prediction.paper)
    return {
        "doc_id": number,
        "doc": doc,
        "target": prediction.problem.gold,
        "arguments": {"gen_args_0": {"arg_0": prediction.prompt, "arg_1": {"do_sample": False}}},
        "resps": [[prediction.text]],
        "filtered_resps": ["" if prediction.answer is None else prediction.answer],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(prediction.prompt),
        "target_hash": _hash(prediction.problem.gold),
        "verdict": prediction.verdict.value,
        **metrics,
    }


def results(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The harness's results; the standard error is √(p (1 - p) / (n - 1)), or that over clusters of questions."""
    summary = summarize(predictions)
    task, n = _name(predictions[0].problem.task), summary.n
    metrics = {_METRIC: summary.accuracy} | ({} if summary.paper is None else {_PAPER: summary.paper})
    measured: dict[str, Any] = {"alias": task}
    right = {_METRIC: [p.verdict is Verdict.RIGHT for p in predictions], _PAPER: [bool(p.paper) for p in predictions]}
    within = clusters.find([prediction.problem for prediction in predictions])
    for metric, accuracy in metrics.items():
        error: float | str = math.sqrt(accuracy * (1 - accuracy) / (n - 1)) if n > 1 else "N/A"
        if within is not None:
            error = crossed.mean(np.array([right[metric]]), within.of).error
        measured |= {f"{metric},none": accuracy, f"{metric}_stderr,none": error}
    shots = predictions[0].prompt.count("Question:") - 1 if predictions[0].prompt_style == "few_shot" else 0
    config = {
        "task": task,
        "test_split": predictions[0].problem.split,
        "output_type": "generate_until",
        "metric_list": [{"metric": one, "aggregation": "mean", "higher_is_better": True} for one in metrics],
        "num_fewshot": shots,
        "metadata": {"prompt_style": predictions[0].prompt_style},
    }
    return {
        "results": {task: measured},
        "group_subtasks": {task: []},
        "configs": {task: config},
        "versions": {task: "lema_jax"},
        "n-shot": {task: shots},
        "higher_is_better": {task: dict.fromkeys(metrics, True)},
        "n-samples": {task: {"original": n, "effective": n}},
        "config": {"model": "lema_jax", "model_args": f"checkpoint={predictions[0].checkpoint}"},
        "model_name": predictions[0].checkpoint,
    }


def _name(task: str) -> str:
    return Path(task.removeprefix("jsonl:")).stem


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
