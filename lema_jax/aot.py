"""Compiles a run for a TPU that is not there: does it fit, how long does a step take, what will it cost?

    python -m lema_jax.aot --config=configs/llama2_70b_gsm8k.py --topology=v5e-32 [--preset=llama-2-70b] [--slices=2]
        [--decode] [--search] [--price_per_chip_hour=1.2] [--calibrate=measured.json] [--json=report.json]

Reads a configuration, as `train` does, and compiles the trainer's very step for a slice on descriptions of arrays: no
weights and no data set need be there. With `--decode` the evaluator's prefill and decoding step too. Prints a table for
each program; exit code 2 when one does not fit. Needs the extra `[tpu]` (libtpu), no TPU and no environment variable.
"""

import json
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from lema_jax import checkpoint, cli, storage
from lema_jax.ahead import compiler, estimate, programs, report, search
from lema_jax.errors import UserError
from lema_jax.model import presets
from lema_jax.model.config import LlamaConfig
from lema_jax.parallel import chips
from lema_jax.training.config import TrainConfig

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with get_config().")
_TOPOLOGY = flags.DEFINE_string("topology", "", "A TPU slice: v5e-32, v5p-128, v6e:8x8; unknown names list them all.")
_SLICES = flags.DEFINE_integer("slices", 1, "So many such slices, joined by the data centre's network.", 1, 2**16)
_PRESET = flags.DEFINE_string("preset", "", "Architecture by name, where --config.init is not on this disk.")
_DECODE = flags.DEFINE_bool("decode", False, "Also prefill and decoding step.")
_ROWS = flags.DEFINE_integer("rows", 128, "Of --decode: answers under way at a time.", 1, 2**16)
_PROMPT = flags.DEFINE_integer("prompt", 512, "Of --decode: tokens of a prompt.", 1, 2**20)
_SLOTS = flags.DEFINE_integer("slots", 2560, "Of --decode: tokens of prompt and answer.", 1, 2**20)
_SEARCH = flags.DEFINE_bool("search", False, "Tries meshes, remat and accumulation, and prints the frontier.")
_PRICE = flags.DEFINE_float("price_per_chip_hour", 0.0, "In any currency; prices the run.", lower_bound=0.0)
_CALIBRATE = flags.DEFINE_string("calibrate", "", "A --json report with measured_seconds_per_step added to it.")
_JSON = flags.DEFINE_string("json", "", "File for the report as JSON.")
TOO_LARGE = 2


def main(argv: Sequence[str]) -> int:
    """The door of `ahead`."""
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]!r}; fields are set by --config.field=value")
    config = cli.config_of(_CONFIG, TrainConfig)
    where = chips.named(_TOPOLOGY.value, _SLICES.value)
    llama = architecture(config, _PRESET.value)
    ratio = estimate.calibration(_CALIBRATE.value, where) if _CALIBRATE.value else None
    job = programs.Job(where, compiler.devices(where), llama, _PRICE.value, ratio)
    if _SEARCH.value:
        reports = search.run(job, config, lambda line: print(line, flush=True))
        print("\n" + "\n".join(search.summary(reports)))
    else:
        reports = [programs.train_step(job, config)]
        if _DECODE.value:
            reports += programs.answering(job, config, rows=_ROWS.value, prompt=_PROMPT.value, slots=_SLOTS.value)
        print("\n\n".join(map(report.table, reports)))
    if _JSON.value:
        told = [one.as_json() for one in reports]
        storage.write(_JSON.value, json.dumps(told if len(told) > 1 else told[0], indent=2) + "\n")
    return 0 if all(one.fits for one in reports) or (_SEARCH.value and any(one.fits for one in reports)) else TOO_LARGE


def architecture(config: TrainConfig, preset: str) -> LlamaConfig:
    """What a configuration trains: the preset, its `model`, or what the card of its `init` says.

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
    return checkpoint.read_card(config.init).config


if __name__ == "__main__":
    cli.run(main, out=lambda: _JSON.value or None)
