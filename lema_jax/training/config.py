"""The configuration of a training run: plain dataclasses, built by a file in `configs/`, overridden by flags.

No `from __future__ import annotations` here: ml_collections reads the field types to parse an override.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pydantic

from lema_jax import ranges
from lema_jax.data.batches import MOST_STEPS, DataConfig
from lema_jax.errors import UserError
from lema_jax.model.attention import LANES
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.parallel.mesh import MeshConfig, undivided_heads
from lema_jax.training.objectives import OBJECTIVES, PreferenceConfig
from lema_jax.training.optimizer import OptimizerConfig

# Fields that may differ between a run and its continuation: they change where and how fast it runs and what it logs.
_FREE = (
    *("out", "init", "log_every", "checkpoint_every", "keep", "tensorboard", "wandb", "data.path"),
    *("compute.scan_layers", "compute.remat", "compute.attention", "compute.loss_chunk", "guard.max_chosen_fall"),
)
_FREE_PARTS = ("mesh.", "dev.")
# Fields that the configuration had not at first. At their defaults they shape nothing, so that earlier runs resume.
_LATER = (
    *("data.examples_per_step", "data.order", "model.output_bias", "model.layer_kinds", "model.window"),
    *("model.local_rope_theta", "model.qk_norm", "model.norms", "model.norm_offset", "model.activation"),
    *("model.scale_embeddings", "model.attention_width", "model.attention_softcap", "model.logit_softcap"),
    *("model.family", "objective", "preference.beta", "preference.label_smoothing", "preference.nll_weight"),
    *("preference.learning_rate", "preference.reference"),
)


@dataclasses.dataclass
class GuardConfig:
    """What a run does about a step whose loss or gradient is not finite, and about chosen completions that become less
    likely. A non-finite update is always skipped."""

    max_grad_norm: float = ranges.within(0.0, 0, 1e30)  # larger counts as non-finite too; 0 for no bound
    skip_steps: int = ranges.within(0, 0, 10**9)  # non-finite steps in a row before the run stops
    # Of the objective `preference`: the run stops where the chosen completions' mean log-probability is so many nats a
    # token below the reference's; 0 for no bound. At 1 each token is on average a third as likely as it was.
    max_chosen_fall: float = ranges.within(1.0, 0, 1e6)

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        return ranges.problems(self)


@dataclasses.dataclass
class DevConfig:
    """Held-out training questions, evaluated at every checkpoint; the best checkpoint is kept too."""

    path: str = ""  # the folder `dev` of a data set made with --dev_questions; empty for none
    questions: int = ranges.within(0, 0, 10**6)  # answered greedily; 0 measures only the loss
    max_new_tokens: int = ranges.within(512, 1, 2**20)

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = ranges.problems(self)
        if self.questions and not self.path:
            found.append(f"questions={self.questions} needs dev.path; build_data --dev_questions makes one")
        return found


@dataclasses.dataclass
class TrainConfig:
    """One run. Set exactly one of `init` and `model`, its start, and one of `steps`, `epochs`, `tokens`, its length.

    Attributes:
      out: the run's folder; a model folder once a checkpoint is there. Running again continues from the last one.
      init: a model folder to start from.
      model: architecture of a model to start from random weights.
      lora: adapters to train on frozen weights; None trains all weights.
      steps: optimizer steps in all.
      epochs: the length in passes over the examples, instead.
      tokens: the length in tokens (without padding), instead.
      objective: what is minimised, a row of `objectives.OBJECTIVES`: sft, or preference, which needs pairs as data.
      preference: how pairs are learnt from.
      accumulation: micro-batches of a global batch; 0: each has one row on every device that rows are sharded over. Of
        the rows that `data.examples_per_step` leaves empty, only those beside full ones are computed.
      seed: of random weights and dropout (`data.seed` is the order of examples).
      log_every, checkpoint_every: in steps. The last step is always logged and saved.
      keep: number of newest checkpoints to keep; 0 keeps all.
      tensorboard: also write event files to out/tensorboard.
      wandb: project of Weights & Biases to report to; empty for none.
    """

    out: str
    data: DataConfig
    steps: int = ranges.within(0, 0, MOST_STEPS)
    epochs: float = ranges.within(0.0, 0, 10**4)
    tokens: int = ranges.within(0, 0, 10**15)
    init: str = ""
    model: LlamaConfig | None = None
    lora: LoraConfig | None = None
    objective: str = "sft"
    preference: PreferenceConfig = dataclasses.field(default_factory=PreferenceConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    compute: Compute = dataclasses.field(default_factory=Compute)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    dev: DevConfig = dataclasses.field(default_factory=DevConfig)
    accumulation: int = ranges.within(1, 0, 2**20)
    seed: int = ranges.within(0, 0, 2**32 - 1)
    log_every: int = ranges.within(10, 1, 10**9)
    checkpoint_every: int = ranges.within(100, 1, 10**9)
    keep: int = ranges.within(3, 0, 10**6)
    tensorboard: bool = False
    wandb: str = ""

    def problems(self) -> list[str]:
        """Every field, of nested configs too, that has the wrong type or is out of range, and the nested `problems`."""
        found = ranges.problems(self)
        if self.objective not in OBJECTIVES:
            found.append(f"objective={self.objective!r} must be one of {', '.join(OBJECTIVES)}")
        elif OBJECTIVES[self.objective].pairs:
            found += self._of_pairs()
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            if hasattr(part, "problems"):
                found += [f"{field.name}.{problem}" for problem in part.problems()]
        return found

    def micro_batches(self, sharded: int) -> int:
        """How many there are, of a batch whose rows are sharded over that many devices."""
        return self.accumulation or max(1, self.data.batch_size // sharded)

    def _of_pairs(self) -> Iterator[str]:
        if self.model is not None:
            yield f"objective={self.objective!r} compares with the model that it starts from; give init, not model"
        if self.preference.reference == "base" and self.lora is None:
            yield "preference.reference='base' is the model under adapters; set lora, or reference='stored'"


def too_long(seq_len: int, model: LlamaConfig) -> list[str]:
    """A problem where rows are longer than the model's context."""
    if seq_len <= model.context:
        return []
    why = f"max_positions={model.max_positions}" + (", by rope scaling" if model.context > model.max_positions else "")
    return [f"data.seq_len={seq_len} must be at most the model's context of {model.context} tokens ({why})"]


def require_shape(config: TrainConfig, llama: LlamaConfig, devices: int) -> None:
    """Refuses a mesh that does not divide an architecture's heads, or rows longer than its context.

    Raises:
      UserError: either.
    """
    *_, tensor = config.mesh.resolve(devices)
    found = [f"mesh.{problem}" for problem in undivided_heads(tensor, llama.num_heads)]
    if found := found + too_long(config.data.seq_len, llama):
        raise UserError("; ".join(found))


def validate(config: TrainConfig, devices: int) -> None:
    """Checks a resolved configuration for that many devices.

    Raises:
      UserError: every broken rule at once, each with field, value, rule and remedy.
    """
    found = config.problems()
    read = (config, config.data, config.mesh, config.model)
    if not any(ranges.problems(part) for part in read if dataclasses.is_dataclass(part)):
        found += _relations(config, devices)
    if found:
        raise UserError("the configuration does not hold together:\n  " + "\n  ".join(found))


def _relations(config: TrainConfig, devices: int) -> list[str]:
    """The broken rules between fields."""
    found = []
    if not config.out:
        found.append("out='' must name a folder; set --config.out")
    if bool(config.init) == (config.model is not None):
        found.append(f"init={config.init!r}: give either init (a model folder) or model (random weights), not both")
    if config.model is not None and config.lora is not None:
        found.append("lora: adapters on random weights learn nothing; give init, or leave lora out")
    if config.lora is None and config.compute.param_dtype != "float32":
        found.append(
            f"compute.param_dtype={config.compute.param_dtype!r} is of frozen weights, and without lora all are "
            "trained; set 'float32', or lora"
        )
    lengths = {name: getattr(config, name) for name in ("steps", "epochs", "tokens")}
    if sum(value > 0 for value in lengths.values()) != 1:
        given = ", ".join(f"{name}={value}" for name, value in lengths.items())
        found.append(f"{given}: exactly one must be positive, and the others 0")
    if config.model is not None:
        found += too_long(config.data.seq_len, config.model)
    kind = config.compute.attention
    if kind not in ("auto", "xla") and config.data.seq_len % LANES:
        found.append(f"data.seq_len={config.data.seq_len} must divide by {LANES} for compute.attention={kind!r}")
    try:
        data, fsdp, sequence, tensor = config.mesh.resolve(devices)
    except UserError as error:
        found.append(str(error))
    else:
        times = max(1, config.accumulation)
        rows = data * fsdp * times
        if config.data.batch_size % rows:
            near = max(rows, round(config.data.batch_size / rows) * rows)
            found.append(
                f"data.batch_size={config.data.batch_size} must divide by mesh data × fsdp × accumulation = "
                f"{data} × {fsdp} × {times} = {rows}; try {near}"
            )
        if config.data.seq_len % sequence:
            found.append(f"data.seq_len={config.data.seq_len} must divide by mesh.sequence={sequence}")
        if config.model is not None:
            found += [f"mesh.{problem}" for problem in undivided_heads(tensor, config.model.num_heads)]
    return found


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as nested plain values."""
    return pydantic.TypeAdapter(TrainConfig).dump_python(config, mode="json")


def shaping(config: dict[str, Any]) -> dict[str, Any]:
    """`as_dict` flattened to `a.b` names, without the fields that do not change the result."""
    later = _later()
    return {name: value for name, value in described(config).items() if name not in later or value != later[name]}


def described(config: dict[str, Any]) -> dict[str, Any]:
    """`shaping` with the fields that came later, also those at their defaults: by these a person compares two."""
    named = _later() | _flat(config)
    return {name: value for name, value in named.items() if name not in _FREE and not name.startswith(_FREE_PARTS)}


def _later() -> dict[str, Any]:
    """The fields that came later, with their defaults."""
    parts = {"data": DataConfig(), "model": LlamaConfig(), "preference": PreferenceConfig()}
    plain = _flat(
        {name: pydantic.TypeAdapter(type(part)).dump_python(part, mode="json") for name, part in parts.items()}
    )
    plain["objective"] = TrainConfig.objective
    return {name: plain[name] for name in _LATER}


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
