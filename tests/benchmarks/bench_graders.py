"""Verdicts a second of one core: plain numbers, and LaTeX from the golds of MATH.

    python tests/benchmarks/bench_graders.py

Prints one JSON line. LaTeX needs the public data (LEMA_DATA, or ../shared/data).
"""

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from lema_jax.tasks import answers, math

SENTENCES = ["The answer is 5,600.", "The answer is $57.", "#### -10", "So she pays \\boxed{3/4} of it.", "A: 64.00"]


def per_second(count: int, work: Callable[[], None]) -> float:
    """`count` verdicts over the processor time that they took."""
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def numbers() -> None:
    for sentence in SENTENCES * 1_000:
        answer = answers.final_number(f"She has 3 * 4 = 12 of them.\n{sentence}")
        assert answer is not None
        answers.same_number(answer, "5,600")


def main() -> None:
    folder = Path(os.environ.get("LEMA_DATA", Path(__file__).parents[3] / "shared" / "data"))
    golds = [problem.gold for problem in math.load("test", folder) if "\\" in problem.gold]
    rng = random.Random(1)
    pairs = [(rng.choice(golds), rng.choice(golds)) for _ in range(2_000)]

    def latex() -> None:
        for number, (answer, gold) in enumerate(pairs):
            blank = " " * (number % 64)  # golds recur, as they do over samples; an answer is a text not read before
            math.same(f"{answer}{blank}", gold)
            math.same(gold.replace("\\frac", "\\dfrac") + blank, gold)

    found = {"numeric_per_second": per_second(5_000, numbers), "latex_per_second": per_second(2 * len(pairs), latex)}
    print(json.dumps({name: round(value) for name, value in found.items()}))


if __name__ == "__main__":
    main()
