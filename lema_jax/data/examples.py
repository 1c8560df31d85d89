"""Training examples in the paper's formats (arXiv 2310.20689, section 2; the instructions are the authors' own lines).

A chain-of-thought example is the task's prompt and a solution. A correction example shows a wrong solution and asks for
the mistake; its completion names the step, explains it, and solves from that step on. For a question with choices the
completion names no step: it explains the mistakes and gives a full corrected answer.
"""

import enum
import re

from lema_jax import tasks
from lema_jax.records import Attempt, Correction, Critique, Example, Problem, row_id
from lema_jax.tasks import prompts
from lema_jax.tasks.cues import of_this_question
from lema_jax.tasks.steps import number_steps, original_answer, original_solution, proposed, split_steps


class Part(enum.StrEnum):
    """The parts of a correction; an ablation leaves one out."""

    STEP = "step"
    EXPLANATION = "explanation"
    SOLUTION = "solution"


_OPENING = "For the following math word problems, the original solutions may contain errors. Please "
# The paper does not print the prompts of its ablations: these ask only for the parts of the completion.
_REQUESTS = {
    None: "identify the incorrect step in each solution, explain why it is incorrect, and provide the correct solution "
    "starting from that step.",
    Part.STEP: "explain why each solution is incorrect, and provide the correct solution.",
    Part.EXPLANATION: "identify the incorrect step in each solution, and provide the correct solution starting from "
    "that step.",
    Part.SOLUTION: "identify the incorrect step in each solution, and explain why it is incorrect.",
}

_COMMONSENSE = (
    "For the following commonsense questions, the original explanations and reasons may contain mistakes. Please "
)
_COMMONSENSE_REQUESTS = {
    None: "identify and explain the mistakes in the original answer, then correct these mistakes and provide the "
    "corrected final answer. Please just select only one answer that is most relevant to the question.",
    Part.EXPLANATION: "correct the mistakes in the original answer and provide the corrected final answer. Please just "
    "select only one answer that is most relevant to the question.",
    Part.SOLUTION: "identify and explain the mistakes in the original answer.",
}


def cot(problem: Problem, completion: str, source: str, kind: str = "cot") -> Example:
    """A chain-of-thought example: the task's prompt, a solution that ends with `The answer is {a}.`"""
    prompt = tasks.get(problem.task).prompt(problem)
    return _example(kind, problem, source, prompt, completion.strip())


def own(attempt: Attempt) -> Example:
    """A right attempt of the student's as chain of thought (RFT, arXiv 2308.01825)."""
    return cot(attempt.problem, solution(attempt), attempt.student, "own")


def wrong(attempt: Attempt) -> Example:
    """A wrong attempt, under the tag that asks for one (NAT, arXiv 2402.11651)."""
    prompt = prompts.tagged(attempt.problem, right=False)
    return _example("negative", attempt.problem, attempt.student, prompt, solution(attempt))


def tagged(example: Example, problem: Problem) -> Example:
    """An example that asks the plain question, under the tag that asks for a right solution; any other as it is."""
    if example.prompt != tasks.get(problem.task).prompt(problem):
        return example
    prompt = prompts.tagged(problem)
    return example.model_copy(update={"prompt": prompt, "id": row_id(example=example.id, prompt=prompt)})


def solution(attempt: Attempt) -> str:
    """What an attempt says without its thinking, up to the next question, ending in the final sentence."""
    return closed(attempt.problem, of_this_question(attempt.text), attempt.answer or "")


def critique(row: Critique) -> Example:
    """A critique of an attempt: whether it is right, and why (critique fine-tuning, arXiv 2501.17703).

    The row was kept: its judgement is the attempt's verdict. The words of the prompt are ours.
    """
    assert row.right is not None, row.id
    problem, attempt = row.attempt.problem, row.attempt
    task = "a commonsense question" if problem.choices else "a math problem"
    prompt = f"{_JUDGE.format(task)}\n\n{proposed(problem.question, problem.choices, attempt.text)}"
    return _example(f"critique_{attempt.verdict}", problem, row.teacher, prompt, row.completion)


_JUDGE = (
    "Below is {} with a solution that may be right or wrong. Please examine the solution, name the first mistake if "
    "there is one, and conclude with a judgement."
)


def correction(row: Correction, without: Part | None = None) -> Example:
    """A correction example; `without` is the part that an ablation leaves out.

    The row is complete (`is_complete`), and `without` is not `STEP` if it names no step. The prompt ends with the cue
    of the first part that remains.
    """
    assert is_complete(row), row.id
    if row.attempt.problem.choices:
        return _commonsense(row, without)
    problem, wrong = row.attempt.problem, split_steps(row.attempt.text)
    block = original_solution(problem.question, wrong)
    step, explanation = f"Step {row.step}.", f"Explanation: {row.explanation}"
    if without is Part.STEP:
        block = block.removesuffix("Incorrect Step:") + "Explanation:"
        step, explanation = "", row.explanation
    elif without is Part.EXPLANATION:
        explanation = ""
    solution = "" if without is Part.SOLUTION else _solution(row)
    prompt = f"{_OPENING}{_REQUESTS[without]}\n\n{block}"
    completion = "\n".join(part for part in (step, explanation, solution) if part)
    return _example("correction", problem, row.teacher, prompt, completion)


def extracted(row: Correction) -> Example:
    """The chain of thought in a correction: the attempt's steps before the mistake, then the corrected ones."""
    assert is_complete(row), row.id
    right = split_steps(row.attempt.text)[: row.step - 1] if row.step else []
    return cot(row.attempt.problem, "\n".join([*right, *corrected_steps(row)]), row.teacher)


def interface() -> list[str]:
    """The fixed text of correction examples, for a tokenizer that is trained before any exist."""
    cues = "Question:\nOriginal Solution:\n{\nStep 1: \n}\nIncorrect Step:"
    return [f"{_OPENING}{_REQUESTS[None]}\n\n{cues}", "Explanation: \nCorrect Solution:\n{\n...\nStep 1: \n}"]


def is_complete(row: Correction) -> bool:
    """Whether the correction has steps, and names the step of its attempt where they start unless none is needed."""
    if row.attempt.problem.choices:
        return bool(row.steps) and row.step is None
    return bool(row.steps) and row.step is not None and 1 <= row.step <= len(split_steps(row.attempt.text))


def _commonsense(row: Correction, without: Part | None) -> Example:
    problem = row.attempt.problem
    assert without is not Part.STEP, row.id
    block = original_answer(problem.question, problem.choices, row.attempt.text)
    steps = "\n".join(corrected_steps(row))
    parts = [row.explanation, f"Corrected Answer:\n{{\n{steps}\n}}"]
    if without is Part.EXPLANATION:
        block, parts = block.removesuffix("Mistakes:") + "Corrected Answer:", [f"{{\n{steps}\n}}"]
    elif without is Part.SOLUTION:
        parts = [row.explanation]
    prompt = f"{_COMMONSENSE}{_COMMONSENSE_REQUESTS[without]}\n\n{block}"
    return _example("correction", problem, row.teacher, prompt, "\n".join(parts))


def _solution(row: Correction) -> str:
    assert row.step is not None
    unchanged = "...\n" if row.step > 1 else ""  # stands for the steps before the wrong one
    return f"Correct Solution:\n{{\n{unchanged}{number_steps(corrected_steps(row), row.step)}\n}}"


FINAL_SENTENCE = re.compile(r"The answer is [^\n]+\.$")
# A last sentence or line that states the answer in another form: `#### 72`, `**Final Answer:** 72`.
_OTHERWISE = re.compile(
    r"""(?:^|\n|(?<=[.!?)\]}*])[^\S\n]+)
    (?:[^\S\n]*\#{4}(?!\#)
      |[^\S\n]*[\#*_>-]*[^\S\n]*(?:(?:so|thus|hence|therefore|and|then)\b[,\s]*)?(?:(?:the|our|my)\s+)?
       (?:(?:final|correct|corrected)\s+)?answer\b[*_\s]*(?:is|was|equals|[:=])[*_\s:]*)
    (?P<stated>[^\n]+)$""",
    re.IGNORECASE | re.VERBOSE,
)
_MORE = re.compile(r"[.!?;]\s|\b(?:because|since|as|but)\b", re.IGNORECASE)


def closed(problem: Problem, text: str, answer: str) -> str:
    """`text` ending in the final sentence of gold completions, `The answer is {answer}.`

    Replaces a last line or sentence that states only the answer in another form. What a chat model says behind that
    sentence is left out where it has no figures: `I hope this helps!`

    Args:
      answer: the answer of the text, as the task's `extract` returns it.
    """
    text = text.strip()
    text = said if (said := _up_to(problem, text, answer)) and not _SAYS_MORE.search(text, len(said)) else text
    if _ends(problem, text):
        return text
    sentence = f"The answer is {' '.join(answer.split()).rstrip('.')}."
    found = _OTHERWISE.search(text)
    if found is None or not _states_only(problem, found["stated"], answer):
        return f"{text}\n{sentence}".strip()
    between = " " if text[found.start()] in " \t" else "\n"
    return f"{text[: found.start()].rstrip()}{between}{sentence}".strip()


_END = re.compile(r"(?<=\.)(?=\s+\S)")
_SAYS_MORE = re.compile(r"[\d$=\\]|\b(?:answer|wait|but|however|mistake|wrong)\b", re.IGNORECASE)


def _up_to(problem: Problem, text: str, answer: str) -> str | None:
    """The text up to the first `The answer is …` that states the answer and has something behind it; None where none
    does, and of a question with choices, whose reasons may stand there."""
    if problem.choices:
        return None
    start, end = 0, 0
    for end in (found.start() for found in _END.finditer(text)):
        if "The answer is " in text[start:end] and tasks.get(problem.task).extract(text[start:end], problem) == answer:
            return text[:end]
        start = end
    return None


def _ends(problem: Problem, text: str) -> bool:
    """Whether the last sentence states an answer, which `The answer is correct.` does not."""
    sentence = FINAL_SENTENCE.search(text)
    return sentence is not None and tasks.get(problem.task).extract(sentence.group(), problem) is not None


def _states_only(problem: Problem, text: str, answer: str) -> bool:
    return _MORE.search(text) is None and tasks.get(problem.task).extract(f"The answer is {text}", problem) == answer


def corrected_steps(row: Correction) -> list[str]:
    """The steps, ending in the final sentence `The answer is ….`"""
    problem, answer = row.attempt.problem, row.answer or ""
    *steps, last = row.steps
    last = _up_to(problem, last, answer) or last  # what a teacher says of the original behind its answer is no step
    if _ends(problem, last):
        return [*steps, last]
    body, newline, sentence = closed(problem, last, answer).rpartition("\n")
    return [*steps, body, sentence] if newline else [*steps, sentence]


def _example(kind: str, problem: Problem, source: str, prompt: str, completion: str) -> Example:
    id = row_id(kind=kind, prompt=prompt, completion=completion)
    return Example(id=id, kind=kind, problem_id=problem.id, source=source, prompt=prompt, completion=completion)


_QUESTION = re.compile(
    r"(?:^|\n)Question: ?(.*?)\n(?:Answer: |Original Solution:|Original Answer:|Candidate Answers: )", re.DOTALL
)


def question(example: Example) -> str:
    """The question in an example's prompt; the prompt itself where it has another form."""
    found = _QUESTION.search(example.prompt)
    return found[1] if found else example.prompt
