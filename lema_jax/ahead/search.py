"""Walks meshes, remat policies and rows at a time for a training step, each compiled."""

import dataclasses
from collections.abc import Callable, Iterator

from lema_jax.ahead import programs
from lema_jax.ahead.programs import Job
from lema_jax.ahead.report import Report
from lema_jax.errors import UserError
from lema_jax.training.config import TrainConfig

REMAT = ("full", "dots")
ROWS = (1, 2, 4)  # of the batch that a chip (or the chips that share a row) takes at a time


def candidates(config: TrainConfig, llama_kv_heads: int, devices: int) -> Iterator[TrainConfig]:
    """Configurations that do the same steps: every tensor axis that the heads divide, the rest of the chips on fsdp."""
    for tensor in (1, 2, 4, 8, 16):
        if devices % tensor or llama_kv_heads % tensor:
            continue
        fsdp = devices // tensor
        mesh = dataclasses.replace(config.mesh, data=1, fsdp=fsdp, tensor=tensor)
        for rows in ROWS:
            accumulation, rest = divmod(config.data.batch_size, fsdp * rows)
            if rest or not accumulation:
                continue
            for remat in REMAT:
                compute = dataclasses.replace(config.compute, remat=remat)
                yield dataclasses.replace(config, mesh=mesh, accumulation=accumulation, compute=compute)


def run(job: Job, config: TrainConfig, told: Callable[[Report], None]) -> list[Report]:
    """Every candidate's report, told as it is made. A mesh and rows that do not fit with remat are not tried without.

    Raises:
      UserError: a batch that no mesh of the slice divides.
    """
    reports: list[Report] = []
    for candidate in candidates(config, job.llama.num_kv_heads, len(job.devices)):
        before = reports[-1] if reports and candidate.compute.remat != REMAT[0] else None
        if before is not None and not before.fits:
            continue
        reports.append(programs.train_step(job, candidate))
        told(reports[-1])
    if not reports:
        raise UserError(
            f"data.batch_size={config.data.batch_size} leaves chips of every mesh of {len(job.devices)} without a row"
        )
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
