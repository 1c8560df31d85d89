"""The live line of a run that asks a chat endpoint."""

import asyncio
import sys
import time
from typing import Self

from lema_jax.teacher.budget import Budget
from lema_jax.teacher.chat import Outcome


class Progress:
    """Prints, while it is entered, how far `outcome` has come: rewritten in a terminal, line by line elsewhere."""

    def __init__(self, outcome: Outcome, spending: Budget):
        self._outcome, self._budget = outcome, spending
        self.new = 0  # answers since it was entered
        self.tokens = 0  # of these
        self._spent_before = spending.spent_usd

    def line(self, seconds: float) -> str:
        """The state after so many seconds: done, right, money spent and projected, tokens/s, time left."""
        outcome, budget = self._outcome, self._budget
        parts = [f"{outcome.answered:,}/{outcome.total:,} answered"]
        if outcome.answered:
            parts.append(f"right {outcome.right / outcome.answered:.1%}")
        left = outcome.total - outcome.answered
        if budget.spent_usd:
            projected = budget.spent_usd
            if self.new:
                projected += (budget.spent_usd - self._spent_before) / self.new * left
            parts.append(f"${budget.spent_usd:.2f} spent, ${projected:.2f} projected")
        if self.new and seconds > 0:
            parts.append(f"{self.tokens / seconds:,.0f} tokens/s")
            minutes, rest = divmod(round(left * seconds / self.new), 60)
            parts.append(f"{minutes // 60}:{minutes % 60:02}:{rest:02} left")
        return " · ".join(parts)

    async def _show(self) -> None:
        live = sys.stderr.isatty()
        while True:
            await asyncio.sleep(0.5 if live else 10)
            self._print("\r\033[K" if live else "", "" if live else "\n")

    def _print(self, start: str, end: str) -> None:
        print(start + self.line(time.monotonic() - self._started), end=end, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._showing = asyncio.create_task(self._show())
        return self

    def __exit__(self, *exc: object) -> None:
        self._showing.cancel()
        self._print("\r\033[K" if sys.stderr.isatty() else "", "\n")
