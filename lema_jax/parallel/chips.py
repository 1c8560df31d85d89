"""TPU chips and slices: a chip's peak figures, and a slice by its cloud name (v5e-32) and libtpu's (v5e:4x8)."""

import dataclasses
import math
import re

from lema_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip.

    Attributes:
      kind: JAX's `device_kind`.
      flops: peak bfloat16 flops per second.
      hbm_bytes, hbm_bandwidth: bytes, and bytes per second.
      ici_bandwidth: bytes per second sent over all interconnect links together; 90 % of the published rate.
      dcn_bandwidth: bytes per second sent to other slices, a chip's share of its host's network; 90 % of the published
        rate (v5e: two cards of 100 Gbit/s per host of 8 chips; v6e: four of 200; v5p: 50 Gbit/s per chip). A shared
        network does not guarantee it.
      clock: Hz, to convert the compiler's cycle estimates.
      cores: per chip, in names such as v5p-128.
      dims: dimensions of the torus.
    """

    name: str
    kind: str
    flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float
    clock: float
    cores: int
    dims: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v5e",
            kind="TPU v5 lite",
            flops=197e12,
            hbm_bytes=16e9,
            hbm_bandwidth=819e9,
            ici_bandwidth=180e9,
            dcn_bandwidth=2.8e9,
            clock=1.5e9,
            cores=1,
            dims=2,
        ),
        Chip(
            name="v5p",
            kind="TPU v5",
            flops=459e12,
            hbm_bytes=95e9,
            hbm_bandwidth=2765e9,
            ici_bandwidth=540e9,
            dcn_bandwidth=5.6e9,
            clock=1.75e9,
            cores=2,
            dims=3,
        ),
        Chip(
            name="v6e",
            kind="TPU v6 lite",
            flops=918e12,
            hbm_bytes=32e9,
            hbm_bandwidth=1640e9,
            ici_bandwidth=360e9,
            dcn_bandwidth=11.2e9,
            clock=1.75e9,
            cores=1,
            dims=2,
        ),
    )
}
_ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "v6lite": "v6e", "trillium": "v6e"}
_SHAPES = {  # of the slices that libtpu knows, by the dimensions of their torus
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: (
        *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
        *("8x8x16", "8x16x16", "16x16x16"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """`count` slices of `shape` chips each, connected by the data-centre network."""

    chip: Chip
    shape: tuple[int, ...]
    count: int = 1

    @property
    def libtpu(self) -> str:
        """libtpu's name: v5e:4x8."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """Number of chips in all slices."""
        return math.prod(self.shape) * self.count

    @property
    def name(self) -> str:
        """The cloud's name: v5e-32, v5p-128 (which counts cores), 2 × v5e-256."""
        one = f"{self.chip.name}-{math.prod(self.shape) * self.chip.cores}"
        return one if self.count == 1 else f"{self.count} × {one}"


_GPU_FLOPS = {  # dense bfloat16 of NVIDIA's data sheets, by a part of JAX's device_kind
    "H200": 989e12,
    "H100 80GB": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}


def peak_flops(kind: str) -> float | None:
    """Peak dense bfloat16 flops per second of a JAX `device_kind`; None if unknown, as of a CPU."""
    gpu = next((flops for name, flops in _GPU_FLOPS.items() if re.search(rf"NVIDIA.*\b{name}\b", kind)), None)
    return next((chip.flops for chip in CHIPS.values() if chip.kind == kind), gpu)


def named(text: str, count: int = 1) -> Slice:
    """The slice with a cloud or libtpu name: v5e-32, v5litepod-32, v5p-128, v5p:4x4x4.

    Raises:
      UserError: an unknown kind or size; the message lists the known ones.
    """
    found = re.fullmatch(r"([a-z0-9]+)(?:-(\d+)|:(\d+(?:x\d+)+))", text.strip().lower())
    kind = _ALIASES.get(found.group(1), found.group(1)) if found else ""
    if not found or kind not in CHIPS:
        raise UserError(f"no TPU slice is named {text!r}; there are\n{known()}")
    chip = CHIPS[kind]
    for shape in slices(chip):
        if found.group(3) == "x".join(map(str, shape)) or found.group(2) == str(math.prod(shape) * chip.cores):
            return Slice(chip, shape, count)
    raise UserError(f"{text!r} is no slice of {kind}; there are\n{known(kind)}")


def slices(chip: Chip) -> list[tuple[int, ...]]:
    """The shapes of a chip's slices, the smallest first."""
    return sorted((tuple(map(int, shape.split("x"))) for shape in _SHAPES[chip.dims]), key=math.prod)


def known(kind: str = "") -> str:
    """The names of all slices, one line per kind of chip; `kind` selects one."""
    lines = []
    for chip in CHIPS.values():
        if kind in ("", chip.name):
            names = {Slice(chip, shape).name: Slice(chip, shape).libtpu for shape in reversed(slices(chip))}
            lines.append("  " + ", ".join(f"{name} ({libtpu})" for name, libtpu in reversed(names.items())))
    return "\n".join(lines)
