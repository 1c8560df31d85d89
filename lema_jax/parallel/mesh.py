"""The device mesh, and how several processes become one program."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from lema_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass
class MeshConfig:
    """How many devices each axis has; -1 in one of them takes what the others leave.

    data: whole copies of the model, each with its part of the batch. fsdp: weights and optimizer state cut along the
    model width, the batch too. tensor: heads, feed-forward width and vocabulary cut.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1

    def resolve(self, devices: int) -> tuple[int, int, int]:
        """The axis sizes for that many devices.

        Raises:
          UserError: the sizes do not multiply to `devices`.
        """
        sizes = [self.data, self.fsdp, self.tensor]
        named = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, sizes))
        if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise UserError(f"{named}: each must be positive, and at most one -1 (takes the rest)")
        known = math.prod(size for size in sizes if size != -1)
        if -1 in sizes and devices % known == 0:
            sizes[sizes.index(-1)] = devices // known
        if math.prod(sizes) != devices:
            raise UserError(f"{named} is not a layout of {devices} devices; the sizes must multiply to {devices}")
        return sizes[0], sizes[1], sizes[2]


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices (of all processes), tensor axis innermost: its traffic is the heaviest."""
    devices = jax.devices() if devices is None else devices
    sizes = config.resolve(len(devices))
    if devices[0].platform == "cpu":
        return Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
