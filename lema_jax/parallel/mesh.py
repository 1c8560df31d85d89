"""The device mesh."""

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
    """Devices per mesh axis; -1 in one of them takes the rest.

    Attributes:
      data: shards the batch and replicates the model; the axis between the slices of a multi-slice TPU.
      fsdp: shards the batch, and weights and optimizer state along the model width.
      tensor: shards heads, feed-forward width and vocabulary.
      sequence: shards the tokens of a row, for long rows.
    """

    data: int = ranges.within(1, 1, 2**20, also=(-1,))
    fsdp: int = ranges.within(-1, 1, 2**20, also=(-1,))
    tensor: int = ranges.within(1, 1, 2**20, also=(-1,))
    sequence: int = ranges.within(1, 1, 2**20, also=(-1,))

    def problems(self) -> list[str]:
        """Every rule that the fields break on any number of devices."""
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


def undivided_heads(tensor: int, heads: int) -> list[str]:
    """A problem where the `tensor` axis does not divide a model's attention heads; key/value heads may be repeated."""
    return [f"tensor={tensor} must divide num_heads={heads} of the model"] if heads % tensor else []


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of all devices (of all processes), with the tensor axis minor: it has the most traffic.

    Raises:
      UserError: the sizes do not multiply to the devices, or the slices do not divide the data axis.
    """
    devices = jax.devices() if devices is None else devices
    sizes = config.resolve(len(devices))
    # XLA gives each host of GPUs a slice of its own, but their network is one.
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    if devices[0].platform == "cpu":
        grid = np.array(devices).reshape(sizes)
    elif slices > 1:
        if sizes[0] % slices:
            raise UserError(f"mesh.data={sizes[0]} must divide by the number of slices, {slices}; try {slices}")
        within = (sizes[0] // slices, *sizes[1:])
        between = (slices,) + (1,) * (len(AXES) - 1)
        grid = mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
