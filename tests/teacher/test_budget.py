"""The budget: prices, upper bounds, and the sum that is never crossed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.errors import UserError
from lema_jax.teacher import budget, chat
from lema_jax.teacher.budget import Budget, Price, Tokens


def test_prices_from_the_table_and_from_the_user():
    assert budget.price("gpt-4o") == Price(2.5, 10.0)
    assert budget.price("gpt-4o", ["1", "2.5"]) == budget.price("gpt-4o", [1, 2.5]) == Price(1.0, 2.5)
    assert budget.price("my-own-model") is None
    assert Price(2.5, 10.0).of(Tokens(1_000_000, 100_000)) == pytest.approx(3.5)


@pytest.mark.parametrize(
    "given", [["1"], ["1", "2", "3"], ["one", "2"], ["-1", "2"], ["nan", "2"], ["inf", "2"], ["1e308", "2"]]
)
def test_what_is_no_pair_of_prices(given):
    with pytest.raises(UserError, match=r"--usd_per_million=.*2\.5,10"):
        budget.price("gpt-4o", given)


@given(st.text(), st.integers(1, 100))
def test_the_worst_case_is_beyond_a_token_a_byte(prompt, most):
    body = chat.request(prompt, model="m", max_tokens=most).body
    assert budget.worst(body).prompt > len(prompt.encode("utf-8", "surrogatepass"))
    assert budget.worst(body).completion == budget.likely(body).completion == most
    assert budget.likely(body).prompt <= budget.worst(body).prompt


tokens = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(lambda pair: Tokens(*pair))


@given(st.lists(st.tuples(tokens, st.integers(0, 100), st.booleans())), st.integers(0, 5000), st.floats(0, 1e-2))
def test_no_order_of_holding_and_spending_crosses_a_limit(moves, most_tokens, most_usd):
    """Each request uses some percentage of its worst case; some end at once, the others at the very end."""
    spending = Budget(Price(1.0, 3.0), most_usd, most_tokens)
    open_ = []
    for worst, percent, ends_now in moves:
        used = Tokens(worst.prompt * percent // 100, worst.completion * percent // 100)
        if not spending.reserve(worst):
            continue
        if ends_now:
            spending.release(worst)
            spending.spend(used)
        else:
            open_.append((worst, used))
    assert spending.reservations == len(open_)
    for worst, used in open_:
        spending.release(worst)
        spending.spend(used)
    assert spending.spent_tokens <= most_tokens
    assert spending.spent_usd <= most_usd * (1 + 1e-9)
    assert spending.reservations == 0


def test_an_unlimited_budget_holds_anything_without_a_price():
    spending = Budget(None)
    assert spending.reserve(Tokens(10**9, 10**9))
    spending.spend(Tokens(10**9, 0))
    assert spending.spent_usd == 0


def test_a_limit_in_dollars_needs_a_price():
    with pytest.raises(UserError, match="--usd_per_million"):
        Budget(None, max_usd=1.0)
    assert Budget(None, max_tokens=5).reserve(Tokens(2, 3))
    assert not Budget(Price(1, 1), max_usd=math.nextafter(1e-6, 0)).reserve(Tokens(1, 0))


def test_what_was_paid_at_another_price_is_counted_as_it_was():
    spending = Budget(Price(1.0, 1.0), max_usd=5.0)
    spending.spend(Tokens(1_000_000, 0), 4.5)  # a dearer model's
    spending.spend(Tokens(1_000_000, 0), 0.0)  # one that costs nothing
    assert spending.spent_usd == 4.5
    assert spending.spent_tokens == 2_000_000
    assert spending.reserve(Tokens(500_000, 0))
    assert not spending.reserve(Tokens(1, 0))


def test_what_was_paid_is_told_apart_from_what_is_booked():
    spending = Budget(Price(1.0, 1.0), max_usd=5.0)
    assert spending.summary() == ""
    assert "booked" not in spending.no_room()
    spending.spend(Tokens(1_000_000, 0))
    assert spending.summary() == "$1.00 paid"
    spending.spend(Tokens(3_500_000, 0), booked=True)
    assert spending.summary() == "$1.00 paid, at most $3.50 more booked"
    assert (spending.spent_usd, spending.spent_tokens) == (4.5, 4_500_000)
    assert "$3.50 of it are only booked" in spending.no_room()
    assert "release_bookings" in spending.no_room()


@pytest.mark.parametrize("usd", [-1.0, math.nan, math.inf, -math.inf])
def test_nothing_makes_money(usd):
    spending = Budget(Price(1.0, 1.0), max_usd=5.0)
    spending.spend(Tokens(-(10**9), 1_000_000), usd)
    assert (spending.spent_usd, spending.spent_tokens) == (1.0, 1_000_000)


@given(st.lists(tokens), st.integers(0, 5))
def test_the_most_of_any_so_many_is_no_less_than_each_choice(each, count):
    most = budget.most(each, count)
    for chosen in (each[:count], each[-count:] if count else [], sorted(each)[-count:] if count else []):
        assert most.prompt >= sum(one.prompt for one in chosen)
        assert most.completion >= sum(one.completion for one in chosen)
    assert budget.most(each, 0) == (0, 0)
