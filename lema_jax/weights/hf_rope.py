"""The rope settings of a `config.json` <-> RopeScaling."""

import math
from typing import Annotated, Any

import pydantic

from lema_jax.model.config import RopeScaling

One = Annotated[float, pydantic.Field(ge=1.0, le=1.0)]
Count = Annotated[int, pydantic.Field(gt=0, lt=1 << 31)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
STRICT = pydantic.ConfigDict(extra="forbid", strict=True)

_YARN = "factor original_max_position_embeddings attention_factor beta_fast beta_slow mscale mscale_all_dim truncate"
# The required and the optional keys of a rope type, besides theta.
_ROPE_KEYS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "default": (frozenset(), frozenset()),
    "linear": (frozenset(["factor"]), frozenset()),
    "dynamic": (frozenset(["factor"]), frozenset()),
    "llama3": (
        frozenset(["factor", "low_freq_factor", "high_freq_factor"]),
        frozenset(["original_max_position_embeddings"]),
    ),
    "yarn": (frozenset(), frozenset(_YARN.split())),
}


class Rope(pydantic.BaseModel):
    """`rope_scaling`, or the newer `rope_parameters`."""

    model_config = STRICT
    rope_type: str = "default"
    rope_theta: Positive | None = None
    partial_rotary_factor: One = 1.0
    factor: Positive | None = None
    original_max_position_embeddings: Count | None = None
    low_freq_factor: pydantic.FiniteFloat = 1.0
    high_freq_factor: pydantic.FiniteFloat = 4.0
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    mscale: pydantic.FiniteFloat | None = None
    mscale_all_dim: pydantic.FiniteFloat | None = None
    truncate: bool = True

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known_type(cls, data: Any) -> Any:
        """Moves `type` to its newer name; an unknown type is the only problem reported, as its keys are unknown."""
        if not isinstance(data, dict):
            return data
        rest = {key: value for key, value in data.items() if value is not None and key != "type"}
        old = data.get("type")
        if old is not None and rest.setdefault("rope_type", old) != old:
            raise ValueError(f"type={old!r} contradicts rope_type={rest['rope_type']!r}")
        kind = rest.get("rope_type", "default")
        if isinstance(kind, str) and kind not in _ROPE_KEYS:
            raise ValueError(f"rope_type {kind!r:.80} is not supported; take a model of one of {', '.join(_ROPE_KEYS)}")
        return rest

    @pydantic.model_validator(mode="after")
    def _keys_of_its_type(self) -> "Rope":
        must, may = _ROPE_KEYS[self.rope_type]
        given = {key for key in self.model_fields_set if getattr(self, key) is not None}
        given -= {"rope_type", "rope_theta", "partial_rotary_factor"}
        if self.rope_type == "default" and self.factor == 1.0:
            given -= {"factor"}
        if must - given:
            raise ValueError(f"rope_type {self.rope_type!r} needs {', '.join(sorted(must - given))}")
        if given - must - may:
            raise ValueError(f"rope_type {self.rope_type!r} does not read {', '.join(sorted(given - must - may))}")
        return self


def read(rope: Rope, max_positions: int, original_positions: int | None) -> RopeScaling:
    """The scaling that the settings say; the arguments are top-level keys of the config.

    `original_positions` takes precedence over that of the settings, as in transformers.
    """
    original = original_positions or rope.original_max_position_embeddings or max_positions
    if rope.rope_type == "llama3":
        return RopeScaling(
            kind="llama3",
            factor=rope.factor or 1.0,
            original_positions=original,
            low_freq_factor=rope.low_freq_factor,
            high_freq_factor=rope.high_freq_factor,
        )
    if rope.rope_type == "yarn":
        factor = rope.factor or max_positions / original
        return RopeScaling(
            kind="yarn",
            factor=factor,
            original_positions=original,
            beta_fast=rope.beta_fast or 32.0,
            beta_slow=rope.beta_slow or 1.0,
            truncate=rope.truncate,
            attention_factor=_attention_factor(rope, factor),
        )
    return RopeScaling() if rope.rope_type == "default" else RopeScaling(kind=rope.rope_type, factor=rope.factor or 1.0)


def _attention_factor(rope: Rope, factor: float) -> float | None:
    """As given, or from DeepSeek's two scales, or None for the default."""
    if rope.attention_factor is not None or not (rope.mscale and rope.mscale_all_dim):
        return rope.attention_factor
    log = math.log(max(1.0, factor))
    return (0.1 * rope.mscale * log + 1.0) / (0.1 * rope.mscale_all_dim * log + 1.0)


def write(scaling: RopeScaling) -> dict[str, Any] | None:
    """The settings that `read` reads as this scaling; None for none."""
    if scaling.kind == "default":
        return None
    values = {
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_positions,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "attention_factor": scaling.attention_factor,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
        "truncate": scaling.truncate,
    }
    must, may = _ROPE_KEYS[scaling.kind]
    read = {key: value for key, value in values.items() if key in must | may and value is not None}
    return {"rope_type": scaling.kind, **read}
