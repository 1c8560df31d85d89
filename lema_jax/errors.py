"""How a door starts and how it fails: one clear line for a mistake of the user's, a traceback for one of ours."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging


class UserError(ValueError):
    """Something the user can mend. Its text says what was found, where (file:line, field), and what to do."""


def run(main: Callable[[Sequence[str]], object]) -> None:
    """Runs a door's `main(argv)`: a `UserError` becomes `error: …` on stderr and exit code 1, without a traceback.

    Flag parsing is inside: an unknown field of `--config` (a KeyError of ml_collections') is a user's mistake too.
    """

    def quietly(argv: Sequence[str]) -> object:
        logging.set_verbosity(logging.WARNING)  # libraries log every file they write; a door prints its own progress
        return main(argv)

    try:
        app.run(quietly, flags_parser=_parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from None
    except KeyError as error:
        raise UserError(f"--config: {error.args[0]}; the fields are those of lema_jax/training/config.py") from error
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise UserError(f"in the command line or its --config: {error}") from error
