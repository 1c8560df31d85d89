"""A mistake and its repair in one chain of thought: the question is asked plainly, and its solution goes wrong, says
what is wrong, and mends it (LEMMA, arXiv 2503.17439; retry data, arXiv 2408.16293). The linking sentences are ours.
"""

from lema_jax.data import examples
from lema_jax.records import Correction, Example, row_id
from lema_jax.tasks.cues import of_this_question
from lema_jax.tasks.steps import split_steps

_LINK = {
    False: "Wait, I made a mistake in this last step.",
    True: "Wait, I made a mistake in this answer.",
}  # by whether there are choices
_AGAIN = "I start again."


def repaired(row: Correction) -> Example:
    """The student's steps up to and with the first wrong one, what is wrong with it, and the solution from there on.

    The row is complete (`examples.is_complete`). Of a question with choices the whole answer stands for the steps.
    """
    return _example(row, [*_before(row), _reflection(row), *examples.corrected_steps(row)])


def restarted(row: Correction) -> Example:
    """As `repaired`, but then the whole solution: the attempt's right steps once more, and the corrected ones."""
    assert row.step is not None, row.id
    again = [f"{_reflection(row)} {_AGAIN}", *_before(row)[: row.step - 1], *examples.corrected_steps(row)]
    return _example(row, [*_before(row), *again])


def weighted(example: Example, row: Correction, weight: int) -> Example:
    """The example with that weight, 0 or 1, on the loss of its wrong step."""
    if weight:
        return example
    wrong = _before(row)[-1]
    end = len("\n".join(_before(row)))
    spans = ((end - len(wrong), end),)
    id = row_id(example=example.id, without_loss=spans)
    return example.model_copy(update={"without_loss": spans, "id": id})


def _before(row: Correction) -> list[str]:
    """The attempt up to and with its first wrong step; all of it, as one, where the question has choices."""
    if row.step is None:
        return [of_this_question(row.attempt.text).strip()]
    return split_steps(row.attempt.text)[: row.step]


def _reflection(row: Correction) -> str:
    return f"{_LINK[row.step is None]} {row.explanation}"


def _example(row: Correction, lines: list[str]) -> Example:
    assert examples.is_complete(row), row.id
    problem = row.attempt.problem
    made = examples.cot(problem, "\n".join(lines), row.teacher)
    return made.model_copy(update={"kind": "inline"})
