"""PEFT's LoRA adapters in and out: `adapter_config.json` and `adapter_model.safetensors`, or `.bin`.

A module that an adapter leaves out gets A = B = 0: it changes nothing, and as the gradient of each is a multiple of the
other, training leaves it so.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, LoraConfig
from lema_jax.weights import names, safetensors
from lema_jax.weights.names import LINEARS, Entry, Source
from lema_jax.weights.safetensors import Safetensors
from lema_jax.weights.torch_file import TorchFile

CONFIG, SAFETENSORS, BIN = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model.model.layers.{layer}."

# Keys that leave the function alone: where it comes from, how it was begun, how it is run.
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "inference_mode",
        "exclude_modules",  # the tensors say which are adapted
        "megatron_core",
        "merge_weights",
        "peft_version",
        "qalora_group_size",
        "revision",
        "target_modules",
        "task_type",
    }
)


class _Config(pydantic.BaseModel, extra="forbid"):
    peft_type: Literal["LORA"]
    r: int = pydantic.Field(gt=0)
    lora_alpha: float
    lora_dropout: float = 0.0
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    # How A and B began. Ways not named here (pissa, olora, corda, loftq) change the base weights, which the adapter
    # then fits no more as they were published.
    init_lora_weights: Literal[True, "true", "gaussian", "orthogonal", "eva"] = True


def load(folder: str | Path, config: LlamaConfig) -> tuple[dict[str, Any], LoraConfig]:
    """An adapter folder as our `lora` collection (numpy float32, stacked over layers), and its shape.

    Args:
      config: of the model that it adapts.

    Raises:
      UserError: a file is missing or damaged; a key of `adapter_config.json` would change the result and is not
        supported; tensors are missing, unexpected or of another width. All are named.
    """
    folder = Path(folder)
    lora = read_config(folder)
    source = _open(folder)
    found = source.names()
    modules = [hf for hf, _, _ in LINEARS if any(f".{hf}.lora_A." in name for name in found)]
    if not modules:
        raise UserError(f"{source.where} adapts none of {', '.join(hf for hf, _, _ in LINEARS)}")
    tree = names.load(source, table(config, lora, modules), np.dtype(np.float32))
    for entry in table(config, lora, [hf for hf, _, _ in LINEARS]):
        if names.find(tree, entry.path) is None:
            names.put(tree, entry.path, np.zeros(entry.full_shape, np.float32))
    return tree, lora


def table(config: LlamaConfig, lora: LoraConfig, modules: list[str]) -> tuple[Entry, ...]:
    """PEFT's names and our arrays for adapted modules, these by Hugging Face's names."""
    size, L = names.sizes(config), config.num_layers
    entries = []
    for hf, path, (inputs, outputs) in LINEARS:
        if hf in modules:
            a, b = (size[inputs], lora.rank), (lora.rank, size[outputs])
            entries.append(Entry(f"{_PREFIX}{hf}.lora_A.weight", f"layers/{path}/a", a, L, transposed=True))
            entries.append(Entry(f"{_PREFIX}{hf}.lora_B.weight", f"layers/{path}/b", b, L, transposed=True))
    return tuple(entries)


def read_config(folder: Path) -> LoraConfig:
    """The shape that `adapter_config.json` tells; raises a UserError as `load` does."""
    path = folder / CONFIG
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is {folder} an adapter folder of PEFT's?") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    shaping = {key: value for key, value in raw.items() if key not in _HARMLESS and not _says_nothing(value)}
    try:
        parsed = _Config.model_validate(shaping)
    except pydantic.ValidationError as error:
        problems = "\n  ".join(
            f"{'.'.join(map(str, found['loc']))}={found['input']!r}: {found['msg']}" for found in error.errors()
        )
        raise UserError(f"{path} is not an adapter that can be read faithfully:\n  {problems}") from None
    return LoraConfig(parsed.r, parsed.lora_alpha, parsed.lora_dropout, parsed.use_rslora)


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _open(folder: Path) -> Source:
    if (folder / SAFETENSORS).exists():
        return Safetensors([folder / SAFETENSORS], str(folder / SAFETENSORS))
    if (folder / BIN).exists():
        return TorchFile(folder / BIN)
    raise UserError(f"{folder} has neither {SAFETENSORS} nor {BIN}")


def adapted(adapters: dict[str, Any]) -> list[str]:
    """The modules, by Hugging Face's names, that a `lora` collection adapts: those whose A is not zero (see above)."""
    return [hf for hf, path, _ in LINEARS if np.any(np.asarray(names.get(adapters, f"layers/{path}/a")))]


def save(folder: Path, adapters: dict[str, Any], lora: LoraConfig, config: LlamaConfig, base: str | None) -> None:
    """Writes an adapter folder that PEFT loads, float32; modules whose A is zero (see above) are left out.

    Args:
      folder: exists.
      base: the name of the base model that the folder is to carry.
    """
    modules = adapted(adapters)
    entries = table(config, lora, modules)
    kept: dict[str, Any] = {}
    for entry in entries:
        names.put(kept, entry.path, names.get(adapters, entry.path))
    source = names.Tree(kept, entries, "the adapters")
    safetensors.save(folder, source, np.dtype(np.float32), 1 << 62)
    (folder / safetensors.SINGLE).rename(folder / SAFETENSORS)
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": [hf.rpartition(".")[2] for hf in modules],
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": lora.rslora,
        "inference_mode": True,
    }
    storage.write(folder / CONFIG, json.dumps(described, indent=2) + "\n")
