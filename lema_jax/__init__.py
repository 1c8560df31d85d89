"""LEMA in JAX: a language model learns from its own mistakes (arXiv 2310.20689)."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m lema_jax.…` is starting
    from lema_jax import interrupts

    interrupts.quiet(resumed="lema_jax.train" in sys.orig_argv)
