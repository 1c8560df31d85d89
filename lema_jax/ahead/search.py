"""Walks meshes, remat policies and rows at a time for a training step, each compiled."""

import dataclasses
from collections.abc import Callable, Iterator

from lema_jax.ahead import programs
from lema_jax.ahead.programs import Job
from lema_jax.ahead.report import Report, choice, line
from lema_jax.errors import UserError
from lema_jax.training.config import TrainConfig

REMAT = ("full", "dots")  # the one that takes least memory first
ROWS = (1, 2, 4)  # of the batch that a chip (or the chips that share a row) takes at a time


def candidates(config: TrainConfig, kv_heads: int, chips: int, slices: int = 1) -> Iterator[TrainConfig]:
    """Configurations that do the same steps: every tensor axis that the heads divide, the rest of a slice on fsdp."""
    within = chips // slices
    for tensor in (1, 2, 4, 8, 16):
        if within % tensor or kv_heads % tensor:
            continue
        fsdp = within // tensor
        mesh = dataclasses.replace(config.mesh, data=slices, fsdp=fsdp, tensor=tensor, sequence=1)
        for rows in ROWS:
            accumulation, rest = divmod(config.data.batch_size, slices * fsdp * rows)
            if rest or not accumulation:
                continue
            for remat in REMAT:
                compute = dataclasses.replace(config.compute, remat=remat)
                yield dataclasses.replace(config, mesh=mesh, accumulation=accumulation, compute=compute)


def run(job: Job, config: TrainConfig, told: Callable[[str], None]) -> list[Report]:
    """Every candidate's report, a line of each told as it is made.

    What does not fit is not tried with more rows, nor with less remat; a mesh that the model does not divide is told.

    Raises:
      UserError: a batch that no mesh of the slice divides.
    """
    reports: list[Report] = []
    hopeless: set[tuple[int, str]] = set()
    found = list(candidates(config, job.llama.num_kv_heads, len(job.devices), job.slice.count))
    if not found:
        raise UserError(
            f"data.batch_size={config.data.batch_size} leaves chips of every mesh of {len(job.devices)} without a row"
        )
    told(f"at most {len(found)} programs for {job.slice.name}, a minute or two each; time is of a step")
    for number, candidate in enumerate(found, 1):
        tensor, remat = candidate.mesh.tensor, candidate.compute.remat
        if hopeless & {(tensor, remat), (tensor, REMAT[0])}:
            continue
        at = f"{number:>3}  "
        try:
            reports.append(programs.train_step(job, candidate))
        except UserError as error:
            hopeless.add((tensor, REMAT[0]))
            told(f"{at}fsdp {candidate.mesh.fsdp}, tensor {tensor}: {error}")
            continue
        if not reports[-1].fits:
            hopeless.add((tensor, remat))
        told(at + line(reports[-1]))
    return reports


def frontier(reports: list[Report]) -> list[Report]:
    """Those that nothing else beats in both peak memory and the upper end of time, fastest first."""

    def key(report: Report) -> tuple[float, float]:
        memory, _, estimate = report.made()
        return estimate.high_s, memory.peak

    best: list[Report] = []
    for report in sorted((one for one in reports if one.fits), key=key):
        if not best or key(report)[1] < key(best[-1])[1]:
            best.append(report)
    return best


def summary(reports: list[Report]) -> list[str]:
    """Lines for people: the frontier, each with the flags that make it; or what was closest to fit, and what to try."""
    if best := frontier(reports):
        return ["the frontier: nothing else is both smaller and faster", *map(choice, best)]
    short = [(one.shortage.wanted, one) for one in reports if one.shortage]
    if not short:
        return ["nothing was compiled: the model divides by no mesh of this slice"]
    _, closest = min(short, key=lambda pair: pair[0])
    return [f"nothing fits; the closest is {line(closest)}", *(f"  try {one}" for one in closest.advice)]
