"""Ahead-of-time compilation for TPUs: memory, cost and estimated time without a device."""
