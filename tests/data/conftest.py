import time

import pytest

from lema_jax.data import template


@pytest.fixture
def clock(monkeypatch):
    """Sets SOURCE_DATE_EPOCH, as at the start of a process; `today` is the day that transformers writes."""

    def set_to(said):
        if said == "today":
            said = str(int(time.time()))
            monkeypatch.setenv("TZ", "UTC")
            time.tzset()
        monkeypatch.setenv("SOURCE_DATE_EPOCH", said)
        template.moment.cache_clear()

    yield set_to
    template.moment.cache_clear()
