"""The configuration of a training run: plain dataclasses, built by a file in `configs/`, overridden by flags.

No `from __future__ import annotations` here: ml_collections reads the field types to parse an override.
"""

import dataclasses
from typing import Any

import pydantic

from lema_jax.data.batches import DataConfig
from lema_jax.errors import UserError
from lema_jax.model.attention import LANES
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training.optimizer import OptimizerConfig

# Fields that may differ between a run and its continuation: they change where, how fast and how watched, not what.
_FREE = (
    *("out", "init", "log_every", "checkpoint_every", "keep", "tensorboard", "wandb", "data.path"),
    *("compute.scan_layers", "compute.remat", "compute.attention", "compute.loss_chunk"),
)
_FREE_PARTS = ("mesh.", "dev.")


@dataclasses.dataclass
class GuardConfig:
    """What a run does about a step whose loss or gradient is NaN or infinite. Its update is never made."""

    max_grad_norm: float = 0.0  # a larger norm counts as ill too; 0 for no bound
    skip_steps: int = 0  # so many ill steps in a row are passed over before the run stops

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        fields = ("max_grad_norm", "skip_steps")
        return [f"{name}={getattr(self, name)} must not be negative" for name in fields if getattr(self, name) < 0]


@dataclasses.dataclass
class DevConfig:
    """Held-out training questions, tried at every checkpoint; the best checkpoint is kept beside the newest."""

    path: str = ""  # the folder `dev` of a data set made with --dev_questions; empty for none
    questions: int = 0  # how many of them are answered greedily; 0 measures the loss alone
    max_new_tokens: int = 512

    def problems(self) -> list[str]:
        """Every rule that the fields break."""
        found = []
        if self.questions < 0:
            found.append(f"questions={self.questions} must not be negative")
        if self.questions and not self.path:
            found.append(f"questions={self.questions} needs dev.path; build_data --dev_questions makes one")
        if self.max_new_tokens < 1:
            found.append(f"max_new_tokens={self.max_new_tokens} must be positive")
        return found


@dataclasses.dataclass
class TrainConfig:
    """One run. Exactly one of `init` and `model` says what it starts from, one of `steps`, `epochs`, `tokens` how long.

    Attributes:
      out: the run's folder; a model folder once a checkpoint is there. Running again continues from the last one.
      init: a model folder to start from.
      model: architecture of a model to start from random weights.
      lora: adapters to train on frozen weights; None trains all weights.
      steps: optimizer steps in all.
      epochs: so many times every example, instead.
      tokens: so many tokens (padding apart), instead.
      accumulation: parts that a global batch is taken in.
      seed: of random weights and dropout (`data.seed` is the order of examples).
      log_every, checkpoint_every: in steps. The last step is always logged and saved.
      keep: how many of the newest checkpoints stay; 0 keeps all.
      tensorboard: also write event files to out/tensorboard.
      wandb: also report to this project of Weights & Biases; empty for none.
    """

    out: str
    data: DataConfig
    steps: int = 0
    epochs: float = 0.0
    tokens: int = 0
    init: str = ""
    model: LlamaConfig | None = None
    lora: LoraConfig | None = None
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    compute: Compute = dataclasses.field(default_factory=Compute)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    dev: DevConfig = dataclasses.field(default_factory=DevConfig)
    accumulation: int = 1
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 100
    keep: int = 3
    tensorboard: bool = False
    wandb: str = ""


def validate(config: TrainConfig, devices: int) -> None:
    """Checks a resolved configuration for that many devices.

    Raises:
      UserError: every broken rule at once, each with field, value, rule and remedy.
    """
    found = []
    for name in ("data", "model", "lora", "optimizer", "compute", "guard", "dev"):
        part = getattr(config, name)
        found += [f"{name}.{problem}" for problem in (part.problems() if part is not None else [])]
    if not config.out:
        found.append("out='' must name a folder; set --config.out")
    if bool(config.init) == (config.model is not None):
        found.append(f"init={config.init!r}: give either init (a model folder) or model (random weights), not both")
    if config.model is not None and config.lora is not None:
        found.append("lora: adapters on random weights learn nothing; give init, or leave lora out")
    lengths = {name: getattr(config, name) for name in ("steps", "epochs", "tokens")}
    if min(lengths.values()) < 0 or sum(value > 0 for value in lengths.values()) != 1:
        told = ", ".join(f"{name}={value}" for name, value in lengths.items())
        found.append(f"{told}: exactly one must be positive, and the others 0")
    for name in ("accumulation", "log_every", "checkpoint_every"):
        if getattr(config, name) < 1:
            found.append(f"{name}={getattr(config, name)} must be at least 1")
    if config.compute.attention == "splash" and config.data.seq_len % LANES:
        found.append(f"data.seq_len={config.data.seq_len} must divide by {LANES} for compute.attention='splash'")
    try:
        data, fsdp, sequence, tensor = config.mesh.resolve(devices)
    except UserError as error:
        found.append(str(error))
    else:
        rows = data * fsdp * config.accumulation
        if config.data.batch_size % rows:
            near = max(rows, round(config.data.batch_size / rows) * rows)
            found.append(
                f"data.batch_size={config.data.batch_size} must divide by mesh data × fsdp × accumulation = "
                f"{data} × {fsdp} × {config.accumulation} = {rows}; try {near}"
            )
        if config.data.seq_len % sequence:
            found.append(f"data.seq_len={config.data.seq_len} must divide by mesh.sequence={sequence}")
        if config.model is not None and config.model.num_kv_heads % tensor:
            found.append(f"mesh.tensor={tensor} must divide model.num_kv_heads={config.model.num_kv_heads}")
    if found:
        raise UserError("the configuration does not hold together:\n  " + "\n  ".join(found))


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The whole resolved configuration as nested plain values."""
    return pydantic.TypeAdapter(TrainConfig).dump_python(config, mode="json")


def shaping(config: dict[str, Any]) -> dict[str, Any]:
    """`as_dict` flattened to `a.b` names, without the fields that do not shape the result."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: dict[str, Any]) -> None:
        for name, value in node.items():
            if isinstance(value, dict):
                walk(f"{prefix}{name}.", value)
            else:
                flat[prefix + name] = value

    walk("", config)
    return {name: value for name, value in flat.items() if name not in _FREE and not name.startswith(_FREE_PARTS)}
