"""Optional grading of an attempt that states no answer, by the only number in its last sentence."""

from lema_jax import tasks
from lema_jax.records import Attempt, Verdict
from lema_jax.tasks import answers, prompts, thinking

FLAG = "read_last_number"
HELP = (
    "Also grade an attempt that states no answer, where the answer is a number, by the only number in its last "
    "sentence (`In total, he eats 48 slices.`). Off by default: such a number need not be the answer."
)


def graded(attempt: Attempt) -> Attempt:
    """The attempt with that number as its answer, recorded in `sampling`; unchanged if there is no such number."""
    if attempt.verdict is not Verdict.UNPARSED or prompts.family(attempt.problem) != "gsm8k":
        return attempt
    said = thinking.spoken(attempt.text)
    answer = answers.last_number(said.text) if said.finished else None
    if answer is None:
        return attempt
    right = tasks.get(attempt.problem.task).same(answer, attempt.problem.gold)
    verdict = Verdict.RIGHT if right else Verdict.WRONG
    return attempt.model_copy(
        update={"answer": answer, "verdict": verdict, "sampling": attempt.sampling | {FLAG: True}}
    )
