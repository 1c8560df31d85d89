"""Decoding and scoring: texts in, texts or their probabilities out."""
