"""LEMA in JAX: a language model learns from its own mistakes (arXiv 2310.20689)."""
