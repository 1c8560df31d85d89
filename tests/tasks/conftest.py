"""Hypothesis without deadlines: what is asserted are properties, and machines are busy."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
