import json

import pytest

from lema_jax.ahead import estimate
from lema_jax.ahead.cost import Collective, Cost
from lema_jax.errors import UserError
from lema_jax.parallel import chips

WHERE = chips.named("v5e-8")
COST = Cost(roof_s=1.0, hybrid_s=1.5, collectives=(Collective("all-gather", 8, 90e9, 4, "bf16", ""),))  # 2 s of links


def test_the_bracket_is_all_hidden_to_nothing_hidden():
    found = estimate.bracket(COST, WHERE)
    assert (found.low_s, found.high_s, found.ici_s, found.calibrated) == (2.0, 3.5, 2.0, False)


def test_what_slices_send_each_other_takes_the_time_of_their_network():
    between = Collective("all-reduce", 2, 2.8e9, 5, "bf16", "", between_slices=True)  # 5 s of it
    found = estimate.bracket(COST + Cost(collectives=(between,)), chips.named("v5e-8", 2))
    assert (found.low_s, found.high_s, found.ici_s, found.dcn_s) == (5.0, 8.5, 2.0, 5.0)


def measured(folder, chip="v5e", low=1.0, seconds=1.25, **fields):
    path = folder / "measured.json"
    told = {"chip": chip, "estimate": {"low_s": low, "calibrated": False}, "measured_seconds_per_step": seconds}
    path.write_text(json.dumps(told | fields))
    return str(path)


def test_a_measurement_takes_the_place_of_the_bracket(tmp_path):
    ratio = estimate.calibration(measured(tmp_path), WHERE)
    found = estimate.bracket(COST, WHERE, ratio)
    assert (found.low_s, found.high_s, found.calibrated) == (2.5, 2.5, True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chip": "v5p"}, "measured on v5p, not on v5e"),
        ({"seconds": None}, "add measured_seconds_per_step"),
        ({"seconds": -1.0}, "must be positive"),
        ({"low": 0}, "add measured_seconds_per_step"),
        ({"estimate": {"low_s": 1, "calibrated": True}}, "itself calibrated"),
    ],
)
def test_a_file_that_calibrates_nothing(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        estimate.calibration(measured(tmp_path, **fields), WHERE)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        estimate.calibration(str(tmp_path / "none.json"), WHERE)
