"""How a model folder answers: the options that `sample` and `evaluate` share. JAX is imported with the engine."""

import dataclasses
from typing import TYPE_CHECKING, Any

from lema_jax.model.config import CACHES, KERNELS
from lema_jax.stage import option
from lema_jax.tasks import prompts

if TYPE_CHECKING:
    from lema_jax.generation.engine import Engine
    from lema_jax.generation.student import Student
    from lema_jax.model.decode import Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """Decoding of a model folder: precision, batch, devices."""

    max_new_tokens: int = option(
        2048, "The most tokens of an answer (the paper evaluates with 2,048).", low=1, high=2**20
    )
    batch_size: int = option(32, "Answers in flight at a time.", low=1, high=2**16)
    dtype: str = option("float32", "Type of weights and activations.", choices=("float32", "bfloat16"))
    weights: str | None = option(
        None,
        "Format that the layers' kernels are stored in; by default dense, or what adapters were trained upon.",
        choices=KERNELS,
    )
    cache: str = option("dense", "Format that cached keys and values are stored in.", choices=CACHES)
    fixed_shapes: bool = option(
        False,
        "Decode with the longest cache from the start, so that an answer in bfloat16 does not depend on the others "
        "that are in flight; slower.",
    )
    fsdp: int = option(1, "Devices that weights are sharded over along the model width.", low=1)
    tensor: int = option(1, "Devices that heads and feed-forward width are sharded over.", low=1)

    def read(self, folder: str, step: int) -> "Student":
        """The student of a model folder's step; see `student.read`."""
        from lema_jax.generation import student

        return student.read(folder, step, self.dtype, weights=self.weights, fsdp=self.fsdp, tensor=self.tensor)

    def engine(self, loaded: "Student", sampling: "Sampling", rows: int, *, style: str, **more: Any) -> "Engine":
        """An engine of as many rows as are wanted, at most `batch_size`; `style`: of the prompts (`prompts.STYLES`)."""
        from lema_jax.generation import student

        return student.engine(
            loaded,
            rows=min(self.batch_size, rows),
            sampling=sampling,
            max_new_tokens=self.max_new_tokens,
            cache=self.cache,
            rendered=style == "chat",
            stop=prompts.stop(style),
            fixed_shapes=self.fixed_shapes,
            **more,
        )

    def precision(self) -> dict[str, str]:
        """What numbers are stored in, as far as it shapes answers: part of a row's id."""
        found = {"dtype": self.dtype}
        if self.weights:
            found["weights"] = self.weights
        if self.cache != "dense":
            found["cache"] = self.cache
        return found
