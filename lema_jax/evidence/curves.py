"""Training curves: the numbers in a run's metrics.jsonl."""

import json
from collections.abc import Mapping
from pathlib import Path

from lema_jax.errors import UserError

Curve = tuple[list[int], list[float]]


def read(folder: Path) -> dict[str, Curve]:
    """Every number of a training run's `metrics.jsonl`, by name: (steps, values), steps ascending.

    A step that occurs twice was repeated after a resume, and its last line counts. An incomplete last line is skipped,
    since the run may still be writing it.

    Raises:
      UserError: no such file, or a line that is not a JSON object with a number `step`.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is {folder} a folder that train made?") from None
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    by_step: dict[int, Mapping[str, object]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            by_step[int(values["step"])] = values
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise UserError(f'{path}:{number}: not a JSON object with a number "step"') from None
    curves: dict[str, Curve] = {}
    for step in sorted(by_step):
        for name, value in by_step[step].items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(step)
                values.append(float(value))
    return curves
