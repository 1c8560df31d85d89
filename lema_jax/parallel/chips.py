"""TPU chips and slices: what a chip can do, and a slice by the names that people and libtpu give it."""

import dataclasses
import math
import re

from lema_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """Public figures of one chip of that kind.

    Attributes:
      kind: what JAX calls such a device (`device_kind`).
      flops: bfloat16, a second.
      hbm_bytes, hbm_bandwidth: of memory, and bytes a second.
      ici_bandwidth: bytes a second that a device sends over all its links together; 90 % of the published rate.
      dcn_bandwidth: its share of what its host sends over the data centre's network, to other slices; 90 % of the
        published rate (v5e: a host of 8 chips has two network cards of 100 Gbit/s, v6e four of 200; v5p: 50 Gbit/s a
        chip), which no network shared with others promises.
      clock: Hz, by which the compiler's cycle estimates are read.
      cores: that a name such as v5p-128 counts for one chip.
      dims: of the torus that a slice is a piece of.
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
        Chip("v5e", "TPU v5 lite", 197e12, 16e9, 819e9, 180e9, 2.8e9, 1.5e9, 1, 2),
        Chip("v5p", "TPU v5", 459e12, 95e9, 2765e9, 540e9, 5.6e9, 1.75e9, 2, 3),
        Chip("v6e", "TPU v6 lite", 918e12, 32e9, 1640e9, 360e9, 11.2e9, 1.75e9, 1, 2),
    )
}
_ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "v6lite": "v6e", "trillium": "v6e"}
_SHAPES = {  # the slices that libtpu knows
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: (
        *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
        *("8x8x16", "8x16x16", "16x16x16"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """`shape` chips of a kind, `count` such slices joined by the data centre's network."""

    chip: Chip
    shape: tuple[int, ...]
    count: int = 1

    @property
    def libtpu(self) -> str:
        """Its name to libtpu: v5e:4x8."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """In all slices."""
        return math.prod(self.shape) * self.count

    @property
    def name(self) -> str:
        """As people say it: v5e-32, v5p-128 (which counts cores), 2 × v5e-256."""
        one = f"{self.chip.name}-{math.prod(self.shape) * self.chip.cores}"
        return one if self.count == 1 else f"{self.count} × {one}"


def peak_flops(kind: str) -> float | None:
    """bfloat16 flops a second of a device that JAX says is of that kind; None where that is not known, as of a CPU."""
    return next((chip.flops for chip in CHIPS.values() if chip.kind == kind), None)


def named(text: str, count: int = 1) -> Slice:
    """The slice of a name: v5e-32, v5litepod-32, v5p-128 (counted in cores, as the cloud does), v5p:4x4x4.

    Raises:
      UserError: a kind or size that there is not; those that there are stand in the message.
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
    """The shapes of a chip's slices, smallest first."""
    return sorted((tuple(map(int, shape.split("x"))) for shape in _SHAPES[chip.dims]), key=math.prod)


def known(kind: str = "") -> str:
    """The names of every slice, a line for each kind (or for that one)."""
    lines = []
    for chip in CHIPS.values():
        if kind in ("", chip.name):
            names = {Slice(chip, shape).name: Slice(chip, shape).libtpu for shape in reversed(slices(chip))}
            lines.append("  " + ", ".join(f"{name} ({libtpu})" for name, libtpu in reversed(names.items())))
    return "\n".join(lines)
