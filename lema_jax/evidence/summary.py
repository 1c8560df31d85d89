"""The result of one run: counts of verdicts, accuracy and its interval over clusters, measures of several samples."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lema_jax.errors import UserError
from lema_jax.evidence import clusters, samples
from lema_jax.evidence.samples import Measure
from lema_jax.evidence.stats import Interval
from lema_jax.records import Prediction, Verdict


@dataclass(frozen=True)
class Summary:
    """The result of one run: `n` questions, `n * samples = right + wrong + unparsed + truncated + prompt_too_long`.

    `accuracy` is the share of right answers (avg@k of k samples), `interval` its 95 % interval over the questions, or
    over their `clusters` (what they are, in words; empty where each question stands alone). `paper` is the accuracy by
    the official grader (the authors'), None where an answer lacks its verdict. `pass_at` and `majority` (maj@k) are of
    several samples.
    """

    n: int
    right: int
    wrong: int
    unparsed: int
    truncated: int
    prompt_too_long: int
    accuracy: float
    interval: Interval
    paper: float | None
    samples: int = 1
    clusters: str = ""
    pass_at: dict[int, Measure] = field(default_factory=dict)
    majority: Measure | None = None


def summarize(predictions: Iterable[Prediction]) -> Summary:
    """The summary of a run's predictions.

    Raises:
      UserError: there are no predictions, or not as many samples of each question.
    """
    predictions = list(predictions)
    questions = by_question(predictions)
    counts = Counter(prediction.verdict for prediction in predictions)
    within = clusters.find([answers[0].problem for answers in questions])
    k, right = len(questions[0]), shares(questions)
    passed, majority = samples.measured(questions, within) if k > 1 else ({}, None)
    return Summary(
        n=len(questions),
        right=counts[Verdict.RIGHT],
        wrong=counts[Verdict.WRONG],
        unparsed=counts[Verdict.UNPARSED],
        truncated=counts[Verdict.TRUNCATED],
        prompt_too_long=counts[Verdict.PROMPT_TOO_LONG],
        accuracy=counts[Verdict.RIGHT] / len(predictions),
        interval=clusters.accuracy_interval(right[None], within, samples=k),
        paper=paper_accuracy(predictions),
        samples=k,
        clusters="" if within is None else str(within),
        pass_at=passed,
        majority=majority,
    )


def by_question(predictions: Iterable[Prediction]) -> list[list[Prediction]]:
    """The samples of each question in their order, questions in the order in which they first occur.

    Raises:
      UserError: there are none, or not as many of each question.
    """
    found: dict[str, dict[int, Prediction]] = {}
    for prediction in predictions:
        found.setdefault(prediction.problem.id, {})[prediction.sample] = prediction
    if not found:
        raise UserError("there are no predictions to summarise; was every question filtered out?")
    questions = [[of[number] for number in sorted(of)] for of in found.values()]
    k = max(map(len, questions))
    if short := next((answers for answers in questions if len(answers) != k), None):
        raise UserError(f"question {short[0].problem.id} has {len(short)} samples, others have {k}; run evaluate again")
    return questions


def shares(questions: Sequence[Sequence[Prediction]]) -> np.ndarray:
    """Right or wrong of each question with one answer, the share of right ones of one with several; [questions]."""
    right = np.array([[one.verdict is Verdict.RIGHT for one in answers] for answers in questions])
    return right[:, 0] if right.shape[1] == 1 else right.mean(axis=1)


def paper_accuracy(predictions: Sequence[Prediction]) -> float | None:
    """Accuracy by the official grader; None where an answer lacks its verdict."""
    verdicts = [prediction.paper for prediction in predictions]
    return None if None in verdicts else sum(map(bool, verdicts)) / len(verdicts)
