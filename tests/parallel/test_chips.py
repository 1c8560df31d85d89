import pytest

from lema_jax.errors import UserError
from lema_jax.parallel import chips


@pytest.mark.parametrize(
    ("name", "libtpu", "count"),
    [
        ("v5e-1", "v5e:1x1", 1),
        ("v5e-32", "v5e:4x8", 32),
        ("v5litepod-8", "v5e:2x4", 8),
        ("V6E-256", "v6e:16x16", 256),
        ("trillium-4", "v6e:2x2", 4),
        ("v5p-8", "v5p:2x2x1", 4),  # counted in cores
        ("v5p-128", "v5p:4x4x4", 64),
        ("v5p:4x4x4", "v5p:4x4x4", 64),
    ],
)
def test_names_people_say(name, libtpu, count):
    found = chips.named(name)
    assert (found.libtpu, found.chips) == (libtpu, count)
    assert chips.named(found.name) == chips.named(found.libtpu) == found


@pytest.mark.parametrize(
    "name", ["", "v7x-8", "tpu", "v5e", "v5e-", "v5e-9", "v5e:3x3", "v5e-32-extra", "v5p-4", "v4-8"]
)
def test_other_names_list_what_there_is(name):
    with pytest.raises(UserError, match=r"v5.-\d+ \(v5.:"):
        chips.named(name)


def test_slices_multiply():
    two = chips.named("v5e-256", 2)
    assert (two.chips, two.name) == (512, "2 × v5e-256")


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA RTX A1000", None),
        ("Tesla T4", None),
        ("cpu", None),
        ("TPU v5 lite", 197e12),
    ],
)
def test_a_device_is_known_by_its_whole_name(kind, flops):
    assert chips.peak_flops(kind) == flops
