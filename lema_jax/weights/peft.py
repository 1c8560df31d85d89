"""Reads and writes PEFT's LoRA adapters: `adapter_config.json` and `adapter_model.safetensors`, or `.bin`.

A module without an adapter, in some layers or all, gets A = B = 0. It changes nothing and stays zero in training, since
the gradient of each factor is a multiple of the other. So do the missing columns of a module of lower rank.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pydantic
from flax import traverse_util

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, LoraConfig
from lema_jax.weights import hf_config, names, safetensors
from lema_jax.weights.names import LINEARS, Entry, Source, View
from lema_jax.weights.safetensors import Safetensors
from lema_jax.weights.torch_file import TorchFile

CONFIG, SAFETENSORS, BIN = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
WAY_OUT = (
    "merge it with peft instead, PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder), "
    "and read that with --hf_dir"
)
_ROOT = "base_model.model."
_PREFIX = _ROOT + "model.layers.{layer}."
# Parts of names that torch.compile, FSDP and activation checkpointing add.
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.\w+)?\.weight")  # the adapter's name may stand before `weight`
_ANY_FACTOR = re.compile(r"(.+)\.lora_[^.]+(?:\.\w+)*")  # `lora_embedding_A` and the like too
_SAVED = re.compile(r"\.modules_to_save(\.\w+)?(?=\.weight$)")

# Keys that do not change the function: origin, initialisation, execution. peft resets `fan_in_fan_out` for linear
# layers, which all of LLaMA's are.
_HARMLESS = hf_config.key_set(
    """
    auto_mapping base_model_name_or_path eva_config fan_in_fan_out inference_mode megatron_core merge_weights
    peft_version qalora_group_size revision runtime_config task_type
    """
)


class _Config(pydantic.BaseModel, extra="forbid", strict=True):
    peft_type: Literal["LORA"]
    r: int = pydantic.Field(gt=0)
    lora_alpha: float = pydantic.Field(allow_inf_nan=False)
    lora_dropout: float = pydantic.Field(0.0, ge=0, lt=1)
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    rank_pattern: dict[str, pydantic.PositiveInt] = {}
    alpha_pattern: dict[str, pydantic.FiniteFloat] = {}
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] = []
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] = []
    modules_to_save: list[str] = []
    ensure_weight_tying: bool = False
    # Others (pissa, olora, corda, loftq) change the base weights, so that the adapter does not fit the published ones.
    init_lora_weights: Literal[True, "true", "gaussian", "orthogonal", "eva"] = True

    def adapts(self, module: str) -> bool:
        """Whether the settings put an adapter on a module, by peft's rules."""
        saved = (re.match(rf"(?:.*\.)?{name}(?:$|\.)", module) for name in self.modules_to_save)
        if _among(self.exclude_modules, module) or any(saved):
            return False
        if self.target_modules == "all-linear":
            return True
        if not _among(self.target_modules or [], module):
            return False
        if isinstance(self.target_modules, str) or self.layers_to_transform in (None, []):
            return True
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern
        layers = [self.layers_to_transform] if isinstance(self.layers_to_transform, int) else self.layers_to_transform
        found = (re.match(rf"(?:.*?\.)?{pattern}\.(\d+)\.", module) for pattern in patterns or [r"[^.]*"])
        return any(match is not None and int(match[1]) in (layers or []) for match in found)

    def shape(self, module: str) -> tuple[int, float]:
        """The rank and the scale of a module's adapter."""
        rank = next((rank for key, rank in self.rank_pattern.items() if _at_end(key, module)), self.r)
        alpha = next((alpha for key, alpha in self.alpha_pattern.items() if _at_end(key, module)), self.lora_alpha)
        return rank, alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _among(names: str | list[str], module: str) -> bool:
    """Whether a module matches a pattern of full names, or one of several suffixes."""
    if isinstance(names, str):
        return bool(names) and re.fullmatch(names, module) is not None
    return any(module == end or module.endswith(f".{end}") for end in names)


def _at_end(pattern: str, module: str) -> bool:
    return re.match(rf"(?:.*\.)?(?:{pattern})$", module) is not None


class Adapter(NamedTuple):
    """An adapter.

    Attributes:
      tree: our `lora` collection (numpy float32, stacked over layers).
      lora: its shape.
      replaced: full weights in place of the model's, by Hugging Face's names (peft's `modules_to_save`).
      tied: whether a tied embedding and head stay tied.
    """

    tree: dict[str, Any]
    lora: LoraConfig
    replaced: Source
    tied: bool


def load_adapter(folder: str | Path, config: LlamaConfig) -> Adapter:
    """Reads an adapter folder of PEFT.

    Modules of different ranks and scales get the largest rank and one scale; B absorbs the ratio of the scales.

    Args:
      config: of the model that it adapts.

    Raises:
      UserError: a file is missing or damaged; a key of `adapter_config.json` that changes the result is not supported;
        a module other than a layer's linear ones is adapted; tensors are missing, unexpected or misshapen.
    """
    folder = Path(folder)
    described = _described(folder)
    source = _open(folder)
    found = _by_plain_name(source)
    stem = "model." if any(name.startswith("model.") for name in found) else ""  # empty if LlamaModel was adapted
    _refuse_other_modules(source, found, described, stem)
    factors = {name for name in found if _FACTOR.fullmatch(name)}
    modules: dict[str, tuple[int, float]] = {}
    for layer in range(config.num_layers):
        for hf, _, _ in LINEARS:
            module = f"{stem}layers.{layer}.{hf}"
            if described.adapts(module) if described.target_modules else f"{module}.lora_A.weight" in factors:
                modules[module] = described.shape(module)
    if not modules and not factors:
        raise UserError(f"{source.where} adapts none of {', '.join(hf for hf, _, _ in LINEARS)}")
    _check(source, found, config, described, modules, stem)
    lora = _common(described, modules)
    view = lambda by_name: View(source.where, {name: (source, stored) for name, stored in by_name.items()})
    tree = _tree(view({name: found[name] for name in factors}), config, lora, modules, stem)
    full = {name if name == names.HEAD or stem else f"model.{name}": found[name] for name in found.keys() - factors}
    return Adapter(tree, lora, replaced=view(full), tied=described.ensure_weight_tying)


def _refuse_other_modules(source: Source, found: Mapping[str, str], described: _Config, stem: str) -> None:
    """Raises a UserError for an adapted embedding or head, which peft allows."""
    linear = tuple(f".{hf}" for hf, _, _ in LINEARS)
    adapted = {match[1] for name in found if (match := _ANY_FACTOR.fullmatch(name))}
    if described.target_modules != "all-linear":
        adapted |= {name for name in ("lm_head", f"{stem}embed_tokens") if described.adapts(name)}
    if other := sorted(module for module in adapted if not f".{module}".endswith(linear)):
        listed = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        supported = ", ".join(hf for hf, _, _ in LINEARS)
        raise UserError(f"{source.where} adapts {listed}; only adapters on {supported} can be read; {WAY_OUT}")


def _by_plain_name(source: Source) -> dict[str, str]:
    """Stored names by plain ones, such as `model.layers.0.self_attn.q_proj.lora_A.weight`."""
    found: dict[str, str] = {}
    for stored in source.names():
        name = ".".join(part for part in stored.split(".") if part not in _WRAPPERS)
        while name.startswith(_ROOT):
            name = name.removeprefix(_ROOT)
        if match := _FACTOR.fullmatch(name):
            name = f"{match[1]}.lora_{match[2]}.weight"
        name = _SAVED.sub("", name)
        if name in found:
            raise UserError(
                f"{source.where}: {found[name]} and {stored} are the same weight, of two adapters perhaps; save one"
            )
        found[name] = stored
    return found


def _check(
    source: Source,
    found: dict[str, str],
    config: LlamaConfig,
    described: _Config,
    modules: dict[str, tuple[int, float]],
    stem: str,
) -> None:
    """Compares the tensors with the settings and the model; full weights may replace any of the model's."""
    size = names.sizes(config)
    expected: dict[str, tuple[int, ...]] = {}
    for module, (rank, _) in modules.items():
        _, (inputs, outputs) = next((path, width) for hf, path, width in LINEARS if module.endswith(hf))
        expected[f"{module}.lora_A.weight"] = (rank, size[inputs])
        expected[f"{module}.lora_B.weight"] = (size[outputs], rank)
    own = {name: entry.hf_shape for entry in names.table(config) for name in entry.names}
    own.setdefault(names.HEAD, own[names.EMBEDDING])
    own = {name if name == names.HEAD or stem else name.removeprefix("model."): shape for name, shape in own.items()}
    expected |= {name: own[name] for name in found.keys() & own.keys()}
    for saved in described.modules_to_save:
        if not any(_at_end(saved, name.removesuffix(".weight")) or name.endswith(f"{saved}.weight") for name in found):
            raise UserError(f"{source.where} lacks {saved}, which {CONFIG} has among modules_to_save")
    shown = lambda name: found.get(name, _ROOT + name)
    names.refuse_differences(
        {shown(name): source.shape(stored) for name, stored in found.items()},
        {shown(name): shape for name, shape in expected.items()},
        f"the tensors of {source.where}",
    )


def _common(described: _Config, modules: dict[str, tuple[int, float]]) -> LoraConfig:
    """One shape for all modules: the largest rank and, if they differ, the largest scale."""
    plain = described.r, described.lora_alpha / (math.sqrt(described.r) if described.use_rslora else described.r)
    alpha, rank = described.lora_alpha, described.r
    if set(modules.values()) != {plain}:
        rank = max(rank for rank, _ in modules.values())
        scale = max((scale for _, scale in modules.values()), key=abs)
        alpha = scale * (math.sqrt(rank) if described.use_rslora else rank)
    return LoraConfig(rank, alpha, described.lora_dropout, described.use_rslora)


def _tree(
    source: Source, config: LlamaConfig, lora: LoraConfig, modules: dict[str, tuple[int, float]], stem: str
) -> dict[str, Any]:
    entries = table(config, lora, [hf for hf, _, _ in LINEARS])
    arrays = {entry.path: np.zeros(entry.full_shape, np.float32) for entry in entries}
    for hf, path, _ in LINEARS:
        for layer in range(config.num_layers):
            if (module := f"{stem}layers.{layer}.{hf}") in modules:
                rank, scale = modules[module]
                a, b = (names.read_whole(source, f"{module}.lora_{part}.weight").astype(np.float32).T for part in "AB")
                arrays[f"layers/{path}/a"][layer, :, :rank] = a
                arrays[f"layers/{path}/b"][layer, :rank] = b if scale == lora.scale else b * (scale / lora.scale)
    return traverse_util.unflatten_dict(arrays, sep="/")


def idle(adapters: dict[str, Any], lora: LoraConfig) -> str:
    """Why an adapter changes nothing: its alpha is 0, or every B; empty if it does."""
    if lora.alpha == 0:
        return "its lora_alpha is 0"
    return "" if _nonzero(adapters, "b") else "every lora_B of it is 0"


def _nonzero(adapters: dict[str, Any], factor: str) -> list[str]:
    """The modules, by Hugging Face's names, whose factor is not zero."""
    arrays = traverse_util.flatten_dict(adapters, sep="/")
    return [hf for hf, path, _ in LINEARS if np.any(np.asarray(arrays[f"layers/{path}/{factor}"]))]


def table(config: LlamaConfig, lora: LoraConfig, modules: list[str]) -> tuple[Entry, ...]:
    """PEFT's names and our arrays for modules by Hugging Face's names."""
    size, L = names.sizes(config), config.num_layers
    entries = []
    for hf, path, (inputs, outputs) in LINEARS:
        if hf in modules:
            a, b = (size[inputs], lora.rank), (lora.rank, size[outputs])
            entries.append(Entry(f"{_PREFIX}{hf}.lora_A.weight", f"layers/{path}/a", a, L, transposed=True))
            entries.append(Entry(f"{_PREFIX}{hf}.lora_B.weight", f"layers/{path}/b", b, L, transposed=True))
    return tuple(entries)


def _described(folder: Path) -> _Config:
    path = folder / CONFIG
    raw = hf_config.read_settings(path, "an adapter folder of PEFT's")
    shaping = {key: value for key, value in raw.items() if key not in _HARMLESS and not _says_nothing(value)}
    try:
        described = _Config.model_validate(shaping)
        for pattern in (*described.rank_pattern, *described.alpha_pattern, *described.modules_to_save):
            re.compile(pattern)
        described.adapts("model.layers.0.self_attn.q_proj")
    except pydantic.ValidationError as error:
        problems: dict[str, str] = {}
        for one in error.errors(include_url=False):  # one per member of a union
            key = str(one["loc"][0])
            unread = one["type"] in ("extra_forbidden", "literal_error")
            why = f"is not supported; {WAY_OUT}" if unread else one["msg"]
            problems.setdefault(key, f"{key}={shaping[key]!r:.80}: {why}" if key in shaping else f"{key} is missing")
        raise UserError(
            f"{path} is not an adapter that can be read faithfully: {'; '.join(problems.values())}"
        ) from None
    except re.error as error:
        raise UserError(f"{path}: {error.pattern!r:.80} is no pattern of module names ({error})") from None
    return described


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _open(folder: Path) -> Source:
    if (folder / SAFETENSORS).exists():
        return Safetensors([folder / SAFETENSORS], str(folder / SAFETENSORS))
    if (folder / BIN).exists():
        return TorchFile(folder / BIN)
    raise UserError(f"{folder} has neither {SAFETENSORS} nor {BIN}")


def adapted(adapters: dict[str, Any]) -> list[str]:
    """The modules, by Hugging Face's names, that a `lora` collection adapts: those whose A is not zero."""
    return _nonzero(adapters, "a")


def save(folder: Path, adapters: dict[str, Any], lora: LoraConfig, config: LlamaConfig, base: str | None) -> None:
    """Fills an existing folder with an adapter for PEFT, in float32; modules whose A is zero are left out.

    Args:
      base: name or path of the base model, for `adapter_config.json`.
    """
    modules = adapted(adapters)
    entries = table(config, lora, modules)
    arrays = traverse_util.flatten_dict(adapters, sep="/")
    saved = traverse_util.unflatten_dict({entry.path: arrays[entry.path] for entry in entries}, sep="/")
    source = names.Tree(saved, entries, "the adapters")
    safetensors.save(folder, source, np.dtype(np.float32), shard_bytes=None, single=SAFETENSORS)
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
