"""Which devices make one mesh: slices are of TPUs."""

import dataclasses

import numpy as np
import pytest

from lema_jax.errors import UserError
from lema_jax.parallel.mesh import MeshConfig, make_mesh


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    platform: str
    slice_index: int

    @property
    def process_index(self) -> int:
        return self.slice_index

    @property
    def device_kind(self) -> str:
        return self.platform


def devices(platform: str) -> list[Device]:
    """Two hosts of four; XLA numbers hosts of GPUs as slices."""
    return [Device(number, platform, number // 4) for number in range(8)]


def test_hosts_of_gpus_are_no_slices():
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1), devices("gpu"))
    assert [device.id for device in np.ravel(mesh.devices)] == list(range(8))


def test_slices_of_tpus_divide_the_data_axis():
    with pytest.raises(UserError, match=r"mesh\.data=1 must divide by the number of slices, 2; try 2"):
        make_mesh(MeshConfig(data=1, fsdp=-1), devices("tpu"))
