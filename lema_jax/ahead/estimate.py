"""A bracket of the time of a step, from a cost model that no chip has calibrated.

The lower end is the longest of roofline, interconnect and data-centre network, as if they overlapped fully; the upper
end adds the latter two to the roofline with the compiler's cycle estimates, as if nothing overlapped. The ends differ
by about a factor of two: compare programs by them, and measure on a chip for a time.
"""

import dataclasses
import json
from pathlib import Path

from lema_jax.ahead.cost import Cost
from lema_jax.errors import UserError
from lema_jax.parallel.chips import Slice


@dataclasses.dataclass(frozen=True)
class Bracket:
    """Both ends and their four terms, in seconds. `calibrated`: both ends are the lower one times a measured ratio."""

    low_s: float
    high_s: float
    roof_s: float
    hybrid_s: float
    ici_s: float
    dcn_s: float = 0.0
    calibrated: bool = False


def bracket(cost: Cost, where: Slice, ratio: float | None = None) -> Bracket:
    """The time of one run of a program; with `ratio` (see `calibration`), both ends are the lower end times it."""
    ici = cost.ici_bytes / where.chip.ici_bandwidth
    dcn = cost.dcn_bytes / where.chip.dcn_bandwidth
    low, high = max(cost.roof_s, ici, dcn), cost.hybrid_s + ici + dcn
    if ratio is not None:
        low = high = low * ratio
    return Bracket(
        low_s=low,
        high_s=high,
        roof_s=cost.roof_s,
        hybrid_s=cost.hybrid_s,
        ici_s=ici,
        dcn_s=dcn,
        calibrated=ratio is not None,
    )


def calibration(path: str, where: Slice) -> float:
    """The ratio of measured time to the lower end, from a report's JSON with `measured_seconds_per_step` added.

    Raises:
      UserError: the file cannot be read, lacks the measurement, is itself calibrated, or is of another chip.
    """
    try:
        report = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--calibrate={path} cannot be read: {error}") from None
    try:
        chip, low, measured = report["chip"], report["estimate"]["low_s"], report["measured_seconds_per_step"]
        ratio = float(measured) / float(low)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise UserError(
            f"--calibrate={path}: take the --json of a program's own report and add measured_seconds_per_step, "
            "from the metrics.jsonl of its run, to it"
        ) from None
    if report["estimate"]["calibrated"]:
        raise UserError(f"--calibrate={path} is itself calibrated; measure against a report that is not")
    if chip != where.chip.name:
        raise UserError(f"--calibrate={path} was measured on {chip}, not on {where.chip.name}")
    if ratio <= 0:
        raise UserError(f"--calibrate={path}: measured_seconds_per_step={measured} must be positive")
    return ratio
