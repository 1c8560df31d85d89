"""Compiles a run for a TPU that is not there: does it fit, how long does a step take, what will it cost?

    python -m lema_jax.aot --config=configs/llama2_70b_gsm8k.py --topology=v5e-32 [--preset=llama-2-70b] [--slices=2]
        [--decode] [--search] [--price_per_chip_hour=1.2] [--calibrate=measured.json] [--json=report.json]

Reads a configuration, as `train` does, and compiles the trainer's very step for a slice on descriptions of arrays: no
weights and no data set need be there. With `--decode` the evaluator's prefill and decoding step too. Prints a table for
each program; exit code 2 when one does not fit. Needs the extra `[tpu]` (libtpu), no TPU and no environment variable.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence

from lema_jax import checkpoint, cli, flagged, stage, storage
from lema_jax.ahead import compiler, estimate, programs, report, search
from lema_jax.ahead.report import Report
from lema_jax.errors import UserError
from lema_jax.model import presets
from lema_jax.model.config import LlamaConfig
from lema_jax.parallel import chips
from lema_jax.stage import group, option
from lema_jax.training.config import TrainConfig

TOO_LARGE = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answering:
    """Decoding, with --decode."""

    decode: bool = option(False, "Also compile prefill and a decoding step.")
    rows: int = option(128, "Answers in flight at a time.", low=1, high=2**16)
    prompt: int = option(512, "Tokens of a prompt.", low=1, high=2**20)
    slots: int = option(2560, "Cache length: tokens of prompt and answer.", low=1, high=2**20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` compiles, and for which slice."""

    config: TrainConfig = flagged.config_file(TrainConfig)
    topology: str = option("", "TPU slice: v5e-32, v5p-128, v6e:8x8; an unknown name lists them all.")
    slices: int = option(1, "Number of such slices, connected by the data centre's network.", low=1, high=2**16)
    preset: str = option(
        "", f"Architecture by name, where --config.init is not on this disk: {', '.join(presets.names())}."
    )
    search: bool = option(False, "Try meshes, remat and accumulation, and print the frontier.")
    price_per_chip_hour: float = option(0.0, "Price of a chip for an hour in any currency; prices the run.", low=0)
    calibrate: str = option("", "File of --json with measured_seconds_per_step added to it.")
    json: str = option("", "File for the report as JSON.")
    answering: Answering = group(Answering)

    def problems(self) -> list[str]:
        found = []
        given = sorted({"rows", "prompt", "slots"}.intersection(stage.changed(self)))
        if given and not self.answering.decode:
            found.append(f"--{given[0]} is of --decode; give both, or none")
        if self.search and self.answering.decode:
            found.append("--search compiles training steps alone; leave --decode out")
        if self.price_per_chip_hour and not self.config.steps:
            found.append(
                f"--price_per_chip_hour={self.price_per_chip_hour:g} is for a run of known length, but this one has "
                "epochs or tokens of data that is not here; set --config.steps, and those to 0"
            )
        return found

    def writes(self) -> str | None:
        return self.json or None


@dataclasses.dataclass(frozen=True)
class Result:
    """The compiled programs, and whether they fit: all of them, or with `search` any."""

    reports: Sequence[Report]
    fits: bool


@stage.function
def run(config: Config) -> Result:
    """Compiles the training step, with `decode` prefill and a decoding step too, and prints what each takes.

    Raises:
      UserError: an unknown slice or architecture, or a configuration that does not hold together.
    """
    if not config.config.data.batch_size:
        raise UserError("data.batch_size=0 depends on the data, which nothing is compiled from; set the number of rows")
    where = chips.named(config.topology, config.slices)
    llama = architecture(config.config, config.preset)
    ratio = estimate.calibration(config.calibrate, where) if config.calibrate else None
    target = programs.Target(where, compiler.devices(where), llama, config.price_per_chip_hour, ratio)
    reports: list[Report] = []
    for one in _compiled(config, target):
        if not config.search:  # which logs a line of each
            print("\n" * bool(reports) + report.table(one), flush=True)
        reports.append(one)
        if config.json:  # at once: each takes minutes
            found = [one.as_json() for one in reports]
            storage.write(config.json, json.dumps(found if len(found) > 1 else found[0], indent=2) + "\n")
    if config.search:
        print("\n" + "\n".join(search.summary(reports)))
    return Result(reports, (any if config.search else all)(one.fits for one in reports))


def _compiled(config: Config, target: programs.Target) -> Iterator[Report]:
    """The report of each program when it is compiled."""
    if config.search:
        yield from search.run(target, config.config, lambda line: print(line, flush=True))
        return
    how = config.answering
    if how.decode:
        programs.require_rows(target, config.config, how.rows)
    yield programs.train_step(target, config.config)
    if how.decode:
        yield programs.prefill(target, config.config, rows=how.rows, prompt=how.prompt)
        yield programs.decode_step(target, config.config, rows=how.rows, cache_length=how.slots)


def architecture(config: TrainConfig, preset: str) -> LlamaConfig:
    """What a configuration trains: the preset, its `model`, or what the metadata of its `init` says.

    Raises:
      UserError: none of the three.
    """
    if preset:
        return presets.get(preset)
    if config.model is not None:
        return config.model
    if not (storage.place(config.init) / "model.json").exists():
        raise UserError(
            f"init={config.init!r} is not on this disk; name its architecture with --preset, "
            f"one of {', '.join(presets.names())}"
        )
    return checkpoint.read_metadata(config.init).config


command = cli.Command("aot", __doc__, Config, run, code=lambda result: 0 if result.fits else TOO_LARGE)
if __name__ == "__main__":
    command.main()
