"""Trains a model: reads a data set and what to start from, writes a model folder.

    python -m lema_jax.train --config=configs/smollm2_gsm8k.py --config.out=runs/lema --config.steps=60

Every field of the configuration can be overridden by `--config.field=…`, nested ones by `--config.a.b=…`. The same
command run again continues from the last checkpoint in `--config.out`.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from lema_jax import errors
from lema_jax.training import loop

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with get_config().")
_ALLOW = flags.DEFINE_bool("allow_config_change", False, "Continue a run although its configuration was changed.")


def main(argv: Sequence[str]) -> None:
    """The door of `training.loop.run`."""
    if len(argv) > 1:
        raise errors.UserError(f"unknown argument {argv[1]!r}; fields are set by --config.field=value")
    if _CONFIG.value is None:
        raise errors.UserError(
            "--config is missing; name a file of configs/, such as --config=configs/arithmetic_student.py"
        )
    loop.run(_CONFIG.value, allow_config_change=_ALLOW.value)


if __name__ == "__main__":
    errors.run(main)
