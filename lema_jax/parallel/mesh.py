"""The device mesh: which device holds which part of weights and batch."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from lema_jax import ranges
from lema_jax.errors import UserError

AXES = ("data", "fsdp", "sequence", "tensor")


@dataclasses.dataclass
class MeshConfig:
    """How many devices each axis has; -1 in one of them takes what the others leave.

    data: whole copies of the model, each with its part of the batch; over several slices of a TPU it is the axis that
    crosses from one to the other. fsdp: weights and optimizer state cut along the model width, the batch too.
    tensor: heads, feed-forward width and vocabulary cut. sequence: the tokens of a row cut, for long rows.
    """

    data: int = ranges.within(1, 1, 2**20, also=(-1,))
    fsdp: int = ranges.within(-1, 1, 2**20, also=(-1,))
    tensor: int = ranges.within(1, 1, 2**20, also=(-1,))
    sequence: int = ranges.within(1, 1, 2**20, also=(-1,))

    def problems(self) -> list[str]:
        """Every rule that the fields break, whatever the devices."""
        return ranges.problems(self)

    def resolve(self, devices: int) -> tuple[int, int, int, int]:
        """The axis sizes (in the order of AXES) for that many devices.

        Raises:
          UserError: the sizes do not multiply to `devices`.
        """
        sizes = [getattr(self, axis) for axis in AXES]
        named = ", ".join(f"mesh.{axis}={size}" for axis, size in zip(AXES, sizes))
        if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise UserError(f"{named}: each must be positive, and at most one -1 (takes the rest)")
        known = math.prod(size for size in sizes if size != -1)
        if -1 in sizes and devices % known == 0:
            sizes[sizes.index(-1)] = devices // known
        if math.prod(sizes) != devices:
            raise UserError(f"{named} is not a layout of {devices} devices; the sizes must multiply to {devices}")
        return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices (of all processes), tensor axis innermost: its traffic is the heaviest.

    Raises:
      UserError: sizes that are no layout of the devices, or a data axis that several slices do not divide.
    """
    devices = jax.devices() if devices is None else devices
    sizes = config.resolve(len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if devices[0].platform == "cpu":
        grid = np.array(devices).reshape(sizes)
    elif slices > 1:
        if sizes[0] % slices:
            raise UserError(
                f"mesh.data={sizes[0]} must divide by the {slices} slices, which it is the axis between; try {slices}"
            )
        within = (sizes[0] // slices, *sizes[1:])
        between = (slices,) + (1,) * (len(AXES) - 1)
        grid = mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
