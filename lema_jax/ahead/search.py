"""Searches meshes, remat policies and rows per chip for a training step, by compiling each."""

import dataclasses
from collections.abc import Callable, Iterator

from lema_jax.ahead import programs
from lema_jax.ahead.programs import Target
from lema_jax.ahead.report import Report, choice, line
from lema_jax.errors import UserError
from lema_jax.training.config import TrainConfig

REMAT = ("full", "dots")  # the policy with the least memory first
ROWS = (1, 2, 4)  # rows of the batch on a chip (or on the chips of a tensor axis) at a time


def candidates(config: TrainConfig, kv_heads: int, chips: int, slices: int = 1) -> Iterator[TrainConfig]:
    """Configurations of the same training: tensor axes that divide the heads, the rest of a slice on fsdp."""
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


def run(target: Target, config: TrainConfig, log: Callable[[str], None]) -> Iterator[Report]:
    """Yields the report of every candidate when it is compiled, and logs it in one line.

    A candidate that does not fit is not tried with more rows or less remat; a mesh that does not divide the model is
    logged.

    Raises:
      UserError: no mesh of the slice divides the batch.
    """
    hopeless: set[tuple[int, str]] = set()
    found = list(candidates(config, target.llama.num_kv_heads, len(target.devices), target.slice.count))
    if not found:
        raise UserError(
            f"data.batch_size={config.data.batch_size} leaves some chips without a row on every mesh of "
            f"{len(target.devices)}; choose a batch that the chips divide"
        )
    log(f"at most {len(found)} programs for {target.slice.name}, a minute or two each; time is of a step")
    for number, candidate in enumerate(found, 1):
        tensor, remat = candidate.mesh.tensor, candidate.compute.remat
        if hopeless & {(tensor, remat), (tensor, REMAT[0])}:
            continue
        at = f"{number:>3}  "
        try:
            report = programs.train_step(target, candidate)
        except UserError as error:
            hopeless.add((tensor, REMAT[0]))
            log(f"{at}fsdp {candidate.mesh.fsdp}, tensor {tensor}: {error}")
            continue
        if not report.fits:
            hopeless.add((tensor, remat))
        log(at + line(report))
        yield report


def frontier(reports: list[Report]) -> list[Report]:
    """The Pareto frontier of peak memory and the upper end of time, fastest first."""

    def key(report: Report) -> tuple[float, float]:
        memory, _, estimate = report.figures()
        return estimate.high_s, memory.peak

    best: list[Report] = []
    for report in sorted((one for one in reports if one.fits), key=key):
        if not best or key(report)[1] < key(best[-1])[1]:
            best.append(report)
    return best


def summary(reports: list[Report]) -> list[str]:
    """The frontier with the flags of each, or the candidate closest to fit and what to try."""
    if best := frontier(reports):
        return ["the frontier of memory and time:", *map(choice, best)]
    short = [(one.shortage.wanted, one) for one in reports if one.shortage]
    if not short:
        return ["nothing was compiled: no mesh of this slice divides the model"]
    _, closest = min(short, key=lambda pair: pair[0])
    return [f"nothing fits; the closest is {line(closest)}", *(f"  try {one}" for one in closest.advice)]
