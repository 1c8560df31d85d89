"""Mesh, the sharding table, start-up of several processes."""
