"""Made-up rows that several tests of the data room share."""

from typing import Any

from lema_jax.records import Attempt, Correction, Critique, Problem, Verdict, row_id

STEPS = ("Ann has 3 * 4 = 12 apples.", "She eats 5, so 12 - 5 = 8 are left.", "The answer is 8.")
CORRECTED = ("She eats 5, so 12 - 5 = 7 are left.", "The answer is 7.")


def problem(number: int = 0, **fields: Any) -> Problem:
    question = f"Ann has 3 bags of 4 apples and eats 5 in the year {number}. How many are left?"
    values = {"task": "gsm8k", "split": "train", "question": question, "gold": "7", "rationale": "3 * 4 = <<3*4=12>>12"}
    return Problem(id=f"gsm8k/train/{number}", **values | fields)


def commonsense(**fields: Any) -> Correction:
    """A correction of an answer to a question with choices."""
    asked = problem(task="csqa", question="Where is money kept?", gold="bank", choices=("bank", "sand"), rationale="")
    wrong = attempt(asked, text="Explanations:\nSand - It is safe.\nThe answer is sand.\n")
    steps = ("Explanations:", "Sand - Nobody looks there.", "Reasons and Final Answer:", "The answer is bank.")
    values = {"step": None, "explanation": "Sand is not safe.", "steps": steps, "answer": "bank"}
    return correction(wrong, **values | fields)


def attempt(of: Problem | None = None, text: str = "\n".join(STEPS), verdict: str = "wrong", **fields: Any) -> Attempt:
    of = of or problem()
    values = {
        "student": "tiny",
        "sampling": {},
        "prompt": "",
        "answer": "8",
        "prompt_tokens": 1,
        "completion_tokens": 1,
    }
    id = row_id(problem=of.id, text=text, verdict=verdict, **fields)
    return Attempt(id=id, problem=of, text=text, verdict=Verdict(verdict), **values | fields)


RIGHT = f"{STEPS[0]}\nShe eats 5, so 12 - 5 = 7 are left.\nThe answer is 7."


def critique(of: Attempt | None = None, **fields: Any) -> Critique:
    of = of or attempt()
    right = of.verdict is Verdict.RIGHT
    values = {"teacher": "reference", "text": "", "critique": "Step 1 is right: 3 * 4 = 12.", "right": right}
    return Critique(id=row_id(attempt=of.id, **fields), attempt=of, **values | fields)


def correction(of: Attempt | None = None, **fields: Any) -> Correction:
    of = of or attempt()
    values = {
        "teacher": "reference",
        "text": "",
        "step": 2,
        "explanation": "12 - 5 is 7.",
        "steps": CORRECTED,
        "answer": "7",
    }
    return Correction(id=row_id(attempt=of.id, **fields), attempt=of, **values | fields)
