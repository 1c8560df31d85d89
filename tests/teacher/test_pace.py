"""Pace, on a clock of its own: waiting takes no time, and the times are exact."""

import asyncio
import selectors

import pytest

from lema_jax.teacher.budget import Budget, Price, Tokens
from lema_jax.teacher.chat import Outcome
from lema_jax.teacher.pace import Pace
from lema_jax.teacher.progress import Progress


class _NoWait(selectors.DefaultSelector):
    """Instead of waiting it moves the clock."""

    now = 1000.0

    def select(self, timeout=None):
        self.now += max(timeout or 0, 0)
        return super().select(0)


def run(main):
    selector = _NoWait()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


async def starts(pace: Pace, count: int, *, tokens=100, used=100, lasts=1.0, workers=50, refused=()) -> list[float]:
    """When each of `count` requests started, in seconds; those numbered in `refused` are told to wait 10 s."""
    loop = asyncio.get_running_loop()
    begun, numbers = loop.time(), iter(range(count))
    times = []

    async def work():
        for number in numbers:
            at = await pace.enter(tokens)
            times.append(round(at - begun, 6))
            await asyncio.sleep(lasts)
            if number in refused:
                pace.refuse(at, 10.0)
            else:
                pace.leave(tokens, used)

    await asyncio.gather(*(work() for _ in range(workers)))
    return times


def most_at_once(times, lasts=1.0):
    return max(sum(0 <= later - time < lasts for time in times if time <= later) for later in times)


def test_without_limits_only_the_number_at_once_holds():
    assert run(starts(Pace(3), 9)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_requests_per_minute():
    assert run(starts(Pace(50, requests_per_minute=120), 5)) == [0, 0.5, 1, 1.5, 2]


def test_tokens_per_minute():
    assert run(starts(Pace(50, tokens_per_minute=6000), 4, lasts=0)) == [0, 1, 2, 3]
    both = Pace(50, requests_per_minute=60, tokens_per_minute=60_000)
    assert run(starts(both, 4, lasts=0)) == [0, 1, 2, 3]  # the tighter one holds


def test_tokens_that_were_not_used_are_given_back():
    times = run(starts(Pace(1, tokens_per_minute=6000), 11, tokens=100, used=50, lasts=0.0))
    assert times[-1] == pytest.approx(5, abs=0.6)


def test_a_refusal_stops_all_and_halves_the_number_at_once():
    times = run(starts(Pace(8), 200, refused=set(range(8, 16))))
    assert times[:16] == [0.0] * 8 + [1.0] * 8
    after = times[16:]
    assert min(after) == 12  # refused at 2 s, for 10 s
    assert most_at_once([time for time in after if time < 13]) == 4  # refused together is refused once
    assert 4 < most_at_once(after) <= 8  # and it grows again


def test_it_starts_low_where_it_is_told_to_and_rises():
    times = run(starts(Pace(32, start=4), 200))
    assert most_at_once(times[:4]) == 4
    assert times[4:8] == [1.0] * 4
    assert 10 < most_at_once(times) <= 32
    assert most_at_once(run(starts(Pace(2, start=4), 20))) == 2


def test_a_failure_does_not_make_it_rise():
    async def main():
        pace = Pace(8, start=1)
        for _ in range(20):
            await pace.enter(1)
            pace.leave(1, 1, answered=False)
        return pace._limit

    assert run(main()) == 1


def test_it_never_falls_below_one_at_a_time():
    times = run(starts(Pace(2), 12, refused=set(range(12))))
    assert len(times) == 12
    assert most_at_once(times[4:]) == 1


def test_given_back_tokens_do_not_shorten_a_refusal():
    async def main():
        pace = Pace(4, tokens_per_minute=600)
        first = await pace.enter(100)
        pace.refuse(first, 30.0)
        other = Pace.leave
        pace._running += 1
        other(pace, 1000, 0)  # 100 s given back
        return await pace.enter(1) - first

    assert run(main()) == 30


# --- the live line ----------------------------------------------------------------------------------------------------


def test_the_line_tells_what_is_done_spent_and_left():
    budget = Budget(Price(1.0, 2.0))
    budget.spend(Tokens(1_000_000, 500_000))  # an earlier run: 2 dollars
    outcome = Outcome(total=1000, answered=400, right=100)
    progress = Progress(outcome, budget)
    assert progress.line(0) == "400/1,000 answered · right 25.0% · $2.00 paid, $2.00 projected"
    budget.spend(Tokens(500_000, 250_000))
    progress.new, progress.tokens, outcome.answered = 200, 750_000, 600
    assert progress.line(1000) == (
        "600/1,000 answered · right 16.7% · $3.00 paid, $5.00 projected · 750 tokens/s · 0:33:20 left"
    )


def test_the_line_tells_what_fails_what_is_in_flight_and_what_is_only_booked(capfd):
    budget = Budget(Price(1.0, 2.0))
    progress = Progress(Outcome(total=10), budget, "http://host/v1")
    progress.in_flight = 4
    for reason in ["no answer", "no answer", "status 500"]:
        progress.failed(reason)
    assert capfd.readouterr().err == "http://host/v1: no answer\nhttp://host/v1: status 500\n"
    assert progress.line(5) == "0/10 answered · 4 in flight · 3 failed tries"
    budget.spend(Tokens(500_000, 0), booked=True)
    assert progress.line(5).endswith(" · $0.00 paid, at most $0.50 more booked, $0.50 projected")


def test_the_line_of_a_free_endpoint_tells_no_money():
    assert Progress(Outcome(total=10), Budget(None)).line(5) == "0/10 answered"
