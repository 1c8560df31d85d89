"""Talking to chat models, and parsing what they say."""
