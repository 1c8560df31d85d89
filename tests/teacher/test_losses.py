"""What may have been paid for without an answer, noted and read back."""

import pytest

from lema_jax.errors import UserError
from lema_jax.teacher import losses
from lema_jax.teacher.budget import Price, Tokens
from lema_jax.teacher.losses import Losses

PRICE = Price(1e6, 2e6)  # one and two dollars a token


def counted(replies) -> list[tuple[Tokens, float | None]]:
    return [(loss.tokens, loss.cost_usd) for loss in losses.read(replies) if sum(loss.tokens)]


def test_nothing_was_lost_where_nothing_was_noted(tmp_path):
    assert losses.read(tmp_path / "replies.jsonl") == []


def test_lost_tries_count_in_every_later_run(tmp_path):
    replies = tmp_path / "replies.jsonl"
    for price in (PRICE, None):
        with Losses(replies, price) as noted:
            noted.add(Tokens(3, 1))
            noted.add(Tokens(2, 2))
    assert counted(replies) == [(Tokens(3, 1), 5.0), (Tokens(2, 2), 6.0), (Tokens(3, 1), None), (Tokens(2, 2), None)]


def test_what_was_in_flight_counts_unless_the_run_ended_by_itself(tmp_path):
    replies = tmp_path / "replies.jsonl"
    with Losses(replies, PRICE) as noted:
        with noted.in_flight(Tokens(8, 8)):
            noted.add(Tokens(1, 1))
        with pytest.raises(UserError), noted.in_flight(Tokens(7, 7)):
            raise UserError("the endpoint refuses, after the rest has landed")
        with pytest.raises(KeyboardInterrupt), noted.in_flight(Tokens(6, 6)):
            raise KeyboardInterrupt
        with pytest.raises(OSError, match="full"), noted.in_flight(Tokens(5, 5)):
            raise OSError("the disk is full")
        with noted.in_flight(Tokens(0, 0)):
            pass
    assert [tokens for tokens, _ in counted(replies)] == [Tokens(1, 1), Tokens(6, 6), Tokens(5, 5)]


def test_bookings_are_released_and_what_was_paid_is_not(tmp_path):
    replies = tmp_path / "replies.jsonl"
    with Losses(replies, PRICE) as noted:
        assert noted.release() == 0  # nothing to release is nothing to note
        noted.add(Tokens(3, 1), "no answer")
        noted.add(Tokens(4, 0), "half an answer, and its count", bound=False)
        with pytest.raises(KeyboardInterrupt), noted.in_flight(Tokens(6, 6)):
            raise KeyboardInterrupt
        assert noted.release() == 16
        noted.add(Tokens(2, 2))
        noted.release()
        noted.release()
        noted.add(Tokens(1, 0))
    assert [tokens for tokens, _ in counted(replies)] == [Tokens(4, 0), Tokens(1, 0)]
    assert (tmp_path / "replies.lost.jsonl").read_text().count("released/") == 2


def test_one_name_is_booked_once(tmp_path):
    for _ in range(2):
        with Losses(tmp_path / "replies.jsonl", PRICE) as noted:
            first = noted.add(Tokens(1, 1), name="file/1")
            assert not noted.add(Tokens(1, 1), name="file/1")
    assert not first
    assert [tokens for tokens, _ in counted(tmp_path / "replies.jsonl")] == [Tokens(1, 1)]


def test_it_counts_from_the_moment_it_is_noted(tmp_path):
    with Losses(tmp_path / "replies.jsonl", None) as noted, noted.in_flight(Tokens(5, 5)):
        assert counted(tmp_path / "replies.jsonl") == [(Tokens(5, 5), None)]
