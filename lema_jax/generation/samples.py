"""How many answers to a question are drawn, and how: the option group of `evaluate`. JAX is imported with the loop."""

import dataclasses
from typing import TYPE_CHECKING, Any

from lema_jax.stage import option

if TYPE_CHECKING:
    from lema_jax.model.decode import Sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples: how many answers to a question, and how they are drawn."""

    samples: int = option(1, "Answers to each question; several need a --temperature.", low=1, high=10**4)
    temperature: float = option(0.0, "Temperature of sampling; 0 is greedy.", low=1e-6, high=100, also=(0,))
    top_p: float = option(1.0, "Smallest set of tokens to sample from, by their share of probability.", low=0, high=1)
    seed: int | None = option(
        None, "Seed of sampling; 0 by default for a checkpoint, and none is sent to an endpoint.", low=0
    )

    def drawn(self) -> "Sampling":
        """How the decoding loop chooses tokens."""
        from lema_jax.model.decode import Sampling

        return Sampling(self.temperature, self.top_p)

    def problems(self) -> list[str]:
        """The rules between fields that are broken."""
        if not self.temperature and (self.samples > 1 or self.top_p < 1 or self.seed is not None):
            return [f"--temperature=0 is greedy, and has no --samples={self.samples}, --top_p or --seed; raise it"]
        return []

    def shaping(self, *, seeded: bool) -> dict[str, Any]:
        """What shapes a sample, as part of its row's id and of the summary; nothing of greedy answers."""
        if not self.temperature:
            return {}
        seed = {"seed": self.seed or 0} if seeded or self.seed is not None else {}
        return {"temperature": self.temperature, "top_p": self.top_p, **seed}
