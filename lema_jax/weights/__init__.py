"""Weights and tokenizers in other programs' formats: Hugging Face, PEFT, GGUF."""
