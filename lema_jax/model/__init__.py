"""The LLaMA network."""
