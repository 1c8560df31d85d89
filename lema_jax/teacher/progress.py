"""The progress line of a run that asks a chat endpoint."""

import asyncio
import sys
import time
from typing import Self

from lema_jax.teacher.budget import Budget
from lema_jax.teacher.chat import Outcome

_MOST_SAID = 5  # different reasons that are printed as they come; all are counted


class Progress:
    """Prints the state of `outcome` within its `with` block: one line rewritten in a terminal, new lines elsewhere."""

    def __init__(self, outcome: Outcome, spending: Budget, url: str = "") -> None:
        self._outcome, self._budget, self._url = outcome, spending, url
        self.new = 0  # answers since it was entered
        self.tokens = 0  # of these
        self.in_flight = 0  # requests
        self._failed = 0  # tries
        self._said: set[str] = set()
        self._spent_before = spending.paid_usd

    def failed(self, reason: str) -> None:
        """Counts a try that failed; its reason is printed at once when it is a new one."""
        self._failed += 1
        self.say_once(f"{self._url}: {reason}")

    def say_once(self, what: str) -> None:
        """Prints a message at once, unless it was printed before or too many were."""
        if what not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(what)
            print(("\r\033[K" if sys.stderr.isatty() else "") + what, file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """The state after so many seconds: done, right, failed tries, money paid and projected, tokens/s, time left."""
        outcome, budget = self._outcome, self._budget
        parts = [f"{outcome.answered:,}/{outcome.total:,} answered"]
        if outcome.answered:
            parts.append(f"right {outcome.right / outcome.answered:.1%}")
        if self.in_flight:
            parts.append(f"{self.in_flight:,} in flight")
        if self._failed:
            parts.append(f"{self._failed:,} failed {'try' if self._failed == 1 else 'tries'}")
        left = outcome.total - outcome.answered
        if paid := budget.summary():
            projected = budget.spent_usd
            if self.new:
                projected += (budget.paid_usd - self._spent_before) / self.new * left
            parts.append(f"{paid}, ${projected:,.2f} projected")
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
