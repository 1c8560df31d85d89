"""The report of a compiled program, as text and as JSON."""

import collections
import dataclasses
from typing import Any

from lema_jax.ahead.compiler import Memory
from lema_jax.ahead.cost import Cost
from lema_jax.ahead.estimate import Bracket
from lema_jax.ahead.memory import Buffer, OutOfMemory
from lema_jax.parallel.chips import Slice
from lema_jax.parallel.mesh import AXES


@dataclasses.dataclass(frozen=True)
class Report:
    """One program on one slice. A program that does not fit has no memory, cost or estimate.

    Attributes:
      program: train_step, prefill or decode_step.
      layout: the mesh, and what else distinguishes this program.
      arguments: the largest arguments on a chip.
      tokens: that a run reads (train_step, prefill) or generates (decode_step).
      formula_flops: over all chips; None if there is no formula.
      runs: number of steps of the training run; 0 if unknown.
    """

    program: str
    slice: Slice
    layout: dict[str, Any]
    arguments: list[Buffer]
    tokens: int
    memory: Memory | None = None
    cost: Cost | None = None
    estimate: Bracket | None = None
    formula_flops: float | None = None
    model_flops: float | None = None
    runs: int = 0
    price_per_chip_hour: float = 0.0
    shortage: OutOfMemory | None = None
    advice: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.shortage is None

    def figures(self) -> tuple[Memory, Cost, Bracket]:
        """Memory, cost and estimate of a program that fits."""
        assert self.memory is not None
        assert self.cost is not None
        assert self.estimate is not None
        return self.memory, self.cost, self.estimate

    def hours(self) -> tuple[float, float] | None:
        """Hours of all runs, lower and upper end; None where their number is unknown."""
        _, _, estimate = self.figures()
        return (estimate.low_s * self.runs / 3600, estimate.high_s * self.runs / 3600) if self.runs else None

    def as_json(self) -> dict[str, Any]:
        """The report in JSON's types."""
        where = {"topology": self.slice.name, "chip": self.slice.chip.name, "chips": self.slice.chips}
        values: dict[str, Any] = {"program": self.program, **where, "layout": self.layout, "fits": self.fits}
        values["largest_arguments"] = [dataclasses.asdict(buffer) for buffer in self.arguments]
        if self.shortage:
            values["wanted_bytes"], values["limit_bytes"] = self.shortage.wanted, self.shortage.limit
            values["largest_buffers"] = [dataclasses.asdict(buffer) for buffer in self.shortage.buffers]
            return values | {"advice": list(self.advice)}
        memory, cost, estimate = self.figures()
        hours = self.hours()
        return values | {
            "memory_bytes": dataclasses.asdict(memory),
            "flops_per_chip": cost.flops,
            "flops_by_formula_per_chip": self.formula_flops and self.formula_flops / self.slice.chips,
            "hbm_bytes_per_chip": cost.hbm_bytes,
            "dma_bytes_per_chip": cost.dma_bytes,
            "ici_bytes_per_chip": cost.ici_bytes,
            "dcn_bytes_per_chip": cost.dcn_bytes,
            "collectives": collectives(cost),
            "loops_of_unknown_length": list(cost.open_loops),
            "estimate": dataclasses.asdict(estimate),
            "tokens_per_second": [self.tokens / estimate.high_s, self.tokens / estimate.low_s],
            "hours": hours,
            "money": hours and [each * self.slice.chips * self.price_per_chip_hour for each in hours],
        }


def collectives(cost: Cost) -> list[dict[str, Any]]:
    """Count and bytes sent by a chip, by kind, group and dtype; most bytes first."""
    sums: dict[tuple[str, int, bool, str], list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for one in cost.collectives:
        entry = sums[one.kind, one.group, one.between_slices, one.dtype]
        entry[0] += one.times
        entry[1] += one.total
    rows = [
        {"kind": kind, "group": group, "slices": slices, "dtype": dtype, "count": int(count), "bytes": total}
        for (kind, group, slices, dtype), (count, total) in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def table(report: Report) -> str:
    """The report as lines of text."""
    where = report.slice
    layout = ", ".join(f"{name} {value}" for name, value in report.layout.items())
    head = f"{report.program} on {where.name} ({where.libtpu}, {where.chips} chips): {layout}"
    if report.shortage:
        lines = [head, f"  DOES NOT FIT: {report.shortage}"]
        lines += _buffers("largest buffers, as the compiler allocated them", report.shortage.buffers)
        lines += _buffers("largest arguments on a chip", report.arguments)
        return "\n".join(lines + [f"  try {line}" for line in report.advice])
    memory, cost, estimate = report.figures()
    parts = {name: value for name, value in dataclasses.asdict(memory).items() if name != "peak"}
    lines = [
        head,
        f"  fits           peak {_gb(memory.peak)} of {_gb(where.chip.hbm_bytes)} on a chip: "
        + ", ".join(f"{name} {_gb(value)}" for name, value in parts.items()),
        f"  flops          {cost.flops / 1e12:.2f} T on a chip" + _against(report),
        f"  HBM            {_gb(cost.hbm_bytes)} moved on a chip",
        f"  interconnect   {_gb(cost.ici_bytes)} sent by a chip",
        *_collectives(cost, between_slices=False),
    ]
    if where.count > 1:
        lines.append(f"  network        {_gb(cost.dcn_bytes)} sent by a chip to other slices")
        lines += _collectives(cost, between_slices=True)
    if cost.open_loops:
        lines.append(f"  {len(cost.open_loops)} loops of unknown trip count are counted as one trip each")
    kind = "calibrated by a measurement" if estimate.calibrated else "an uncalibrated model"
    lines.append(
        f"  time           {_s(estimate.low_s)} to {_s(estimate.high_s)} ({kind}; roofline {_s(estimate.roof_s)}, "
        f"with the compiler's cycles {_s(estimate.hybrid_s)}, interconnect {_s(estimate.ici_s)}"
        + (f", network {_s(estimate.dcn_s)})" if where.count > 1 else ")")
    )
    speed = f"  speed          {report.tokens / estimate.high_s:,.0f} to {report.tokens / estimate.low_s:,.0f} tokens/s"
    if report.model_flops:
        peak = where.chips * where.chip.flops
        mfu = [report.model_flops / (seconds * peak) for seconds in (estimate.high_s, estimate.low_s)]
        speed += f", MFU {mfu[0]:.0%} to {mfu[1]:.0%}"
    lines.append(speed)
    if hours := report.hours():
        lines.append(f"  run            {_run(report, hours)}")
    return "\n".join(lines)


def _run(report: Report, hours: tuple[float, float]) -> str:
    """Steps, hours and price of the training run."""
    values = f"{report.runs:,} steps: {hours[0]:.2f} to {hours[1]:.2f} hours"
    if report.price_per_chip_hour:
        low, high = (each * report.slice.chips * report.price_per_chip_hour for each in hours)
        values += f", {low:,.2f} to {high:,.2f} at {report.price_per_chip_hour} for a chip an hour"
    return values


def _collectives(cost: Cost, between_slices: bool) -> list[str]:
    return [
        f"    {row['kind']:<20} {_gb(row['bytes']):>12}   {row['count']} × {row['dtype']} among {row['group']}"
        + (" slices" if between_slices else "")
        for row in collectives(cost)
        if row["slices"] == between_slices and row["bytes"] >= 1e6
    ]


def _against(report: Report) -> str:
    if report.formula_flops is None or report.cost is None:
        return ""
    formula = report.formula_flops / report.slice.chips
    return f"; by formula {formula / 1e12:.2f} T ({report.cost.flops / formula - 1:+.2%})"


def _buffers(title: str, buffers: list[Buffer]) -> list[str]:
    return (
        [f"  {title}:", *(f"    {_gb(one.bytes):>10}  {one.shape}  {one.name}" for one in buffers)] if buffers else []
    )


def _gb(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"


def _s(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds:.3f} s"


def line(report: Report) -> str:
    """The report in one line."""
    layout = ", ".join(f"{name} {value}" for name, value in report.layout.items())
    return f"{layout}: does not fit ({report.shortage})" if report.shortage else f"{layout}: {_figures(report)}"


def choice(report: Report) -> str:
    """A training step that fits, with the flags for `train`."""
    mesh = [f"--config.mesh.{axis}={report.layout.get(axis, 1)}" for axis in AXES]
    rest = f"--config.accumulation={report.layout['accumulation']} --config.compute.remat={report.layout['remat']}"
    run = f"; {_run(report, hours)}" if (hours := report.hours()) else ""
    return f"{_figures(report)}{run}\n  {' '.join(mesh)} {rest}"


def _figures(report: Report) -> str:
    memory, cost, estimate = report.figures()
    network = f", network {_gb(cost.dcn_bytes)}" if report.slice.count > 1 else ""
    time = f"{_s(estimate.low_s)} to {_s(estimate.high_s)}"
    return f"peak {_gb(memory.peak)}, {time}, interconnect {_gb(cost.ici_bytes)}{network}"
