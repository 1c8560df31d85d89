"""Rate control: requests in flight, requests and tokens a minute, and the waits that the endpoint asks for."""

import asyncio
import math


class Pace:
    """Admits requests in order, and slows down when the endpoint refuses one.

    A refusal, a time-out or a broken connection halves the number in flight, an answer lets it grow again by a fraction
    (additive increase, multiplicative decrease). The limits a minute are kept by one clock: each request moves the
    earliest start of the next by the share of a minute that it takes.

    Args:
      start: requests in flight at first; `concurrency` where None.
    """

    def __init__(
        self,
        concurrency: int,
        requests_per_minute: float = math.inf,
        tokens_per_minute: float = math.inf,
        start: int | None = None,
    ) -> None:
        self._most = float(concurrency)
        self._limit = self._most if start is None else float(min(start, concurrency))
        self._per_minute = requests_per_minute, tokens_per_minute
        self._running = 0
        self._next_start = self._resume_at = self._slowed_at = 0.0  # on the loop's clock
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    async def enter(self, tokens: int) -> float:
        """Waits until a request of about `tokens` may start; returns the time at which it does."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while self._running >= int(self._limit):
                self._freed.clear()
                await self._freed.wait()
            while (wait := max(self._next_start, self._resume_at) - loop.time()) > 0:  # a refusal may come meanwhile
                await asyncio.sleep(wait)
            self._running += 1
            self._next_start = loop.time() + self._share(tokens)
            return loop.time()

    def leave(self, expected: int, used: int, *, answered: bool = True) -> None:
        """A request ended. Corrects the clock by the tokens it took, `used`, beside those `expected`."""
        self._running -= 1
        if answered:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        self._next_start -= self._share(expected) - self._share(used)
        self._freed.set()

    def refuse(self, started: float, seconds: float) -> None:
        """A request that started at `started` was refused: none starts for `seconds`, and then fewer are in flight."""
        now = asyncio.get_running_loop().time()
        self._running -= 1
        if started >= self._slowed_at:  # those in flight together are refused together; that is one refusal
            self._limit = max(1.0, self._limit / 2)
            self._slowed_at = now
        self._resume_at = max(self._resume_at, now + seconds)
        self._freed.set()

    def _share(self, tokens: int) -> float:
        """The seconds of its minute that a request takes."""
        requests_per_minute, tokens_per_minute = self._per_minute
        return 60 * max(1 / requests_per_minute, tokens / tokens_per_minute)
