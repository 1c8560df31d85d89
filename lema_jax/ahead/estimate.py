"""How long a step may take, and what a run then costs: a bracket by a model that no chip has calibrated.

The lower end is the roofline, the interconnect or the network between slices, whichever takes longest, as if each hid
the others; the upper end adds the latter two to the roofline with the compiler's own cycle estimates, as if nothing hid
anything. They are about a factor of two apart: use them to compare programs, and a chip to know.
"""

import dataclasses
import json
from pathlib import Path

from lema_jax.ahead.cost import Cost
from lema_jax.errors import UserError
from lema_jax.parallel.chips import Slice


@dataclasses.dataclass(frozen=True)
class Bracket:
    """Seconds: both ends, and the four terms that they are made of. `calibrated`: both ends are one measured ratio."""

    low_s: float
    high_s: float
    roof_s: float
    hybrid_s: float
    ici_s: float
    dcn_s: float = 0.0
    calibrated: bool = False


def bracket(cost: Cost, where: Slice, ratio: float | None = None) -> Bracket:
    """Of one run of a program; with `ratio` (see `calibration`) that multiple of the lower end, at both ends."""
    ici = cost.ici_bytes / where.chip.ici_bandwidth
    dcn = cost.dcn_bytes / where.chip.dcn_bandwidth
    low, high = max(cost.roof_s, ici, dcn), cost.hybrid_s + ici + dcn
    if ratio is not None:
        low = high = low * ratio
    return Bracket(low, high, cost.roof_s, cost.hybrid_s, ici, dcn, ratio is not None)


def calibration(path: str, where: Slice) -> float:
    """Measured over lower end, from a file: the JSON of an earlier report with `measured_seconds_per_step` added to it.

    Raises:
      UserError: a file that cannot be read, lacks the measurement, or is of another kind of chip.
    """
    try:
        told = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--calibrate={path} cannot be read: {error}") from None
    try:
        chip, low, measured = told["chip"], told["estimate"]["low_s"], told["measured_seconds_per_step"]
        ratio = float(measured) / float(low)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise UserError(
            f"--calibrate={path}: take the --json of a program's own report and add measured_seconds_per_step, "
            "from the metrics.jsonl of its run, to it"
        ) from None
    if told["estimate"]["calibrated"]:
        raise UserError(f"--calibrate={path} is itself calibrated; measure against a report that is not")
    if chip != where.chip.name:
        raise UserError(f"--calibrate={path} was measured on {chip}, not on {where.chip.name}")
    if ratio <= 0:
        raise UserError(f"--calibrate={path}: measured_seconds_per_step={measured} must be positive")
    return ratio
