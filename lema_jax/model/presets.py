"""Published architectures by name, for compiling ahead of time without a checkpoint. Conversion does not read them."""

import dataclasses

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig, RopeScaling


def names() -> list[str]:
    """The name of every preset."""
    return list(_presets())


def get(name: str) -> LlamaConfig:
    """The architecture of that name.

    Raises:
      UserError: no such name; the message lists the names.
    """
    presets = _presets()
    if name not in presets:
        raise UserError(f"no preset is named {name!r}; there are {', '.join(presets)}")
    return presets[name]


def _presets() -> dict[str, LlamaConfig]:
    llama1 = LlamaConfig(max_positions=2048, norm_eps=1e-6)
    llama2_7b = LlamaConfig()
    llama2_13b = _sized(llama2_7b, 5120, 13824, 40, 40, 40)
    llama2_70b = _sized(llama2_7b, 8192, 28672, 80, 64, 8)
    code = dataclasses.replace(llama2_7b, max_positions=16384, rope_theta=1e6)
    code_34b = _sized(code, 8192, 22016, 48, 64, 8)
    llama3 = LlamaConfig(vocab_size=128256, max_positions=8192, rope_theta=5e5)
    llama31 = dataclasses.replace(llama3, max_positions=131072, rope_scaling=RopeScaling("llama3", 8.0))
    llama31_70b = _sized(llama31, 8192, 28672, 80, 64, 8)
    llama32 = dataclasses.replace(llama31, rope_scaling=RopeScaling("llama3", 32.0), tie_embeddings=True)
    smollm2 = LlamaConfig(vocab_size=49152, max_positions=8192, rope_theta=1e5, head_dim=64, tie_embeddings=True)
    return {
        "llama-7b": llama1,
        "llama-13b": _sized(llama1, 5120, 13824, 40, 40, 40),
        "llama-33b": _sized(llama1, 6656, 17920, 60, 52, 52),
        "llama-65b": dataclasses.replace(_sized(llama1, 8192, 22016, 80, 64, 64), norm_eps=1e-5),
        "llama-2-7b": llama2_7b,
        "llama-2-13b": llama2_13b,
        "llama-2-70b": llama2_70b,
        "codellama-7b": dataclasses.replace(code, vocab_size=32016),
        "codellama-13b": dataclasses.replace(_sized(code, 5120, 13824, 40, 40, 40), vocab_size=32016),
        "codellama-34b": code_34b,
        "llemma-7b": dataclasses.replace(llama2_7b, vocab_size=32016),
        "llemma-34b": dataclasses.replace(code_34b, max_positions=4096),
        "llama-3-8b": _sized(llama3, 4096, 14336, 32, 32, 8),
        "llama-3-70b": _sized(llama3, 8192, 28672, 80, 64, 8),
        "llama-3.1-8b": _sized(llama31, 4096, 14336, 32, 32, 8),
        "llama-3.1-70b": llama31_70b,
        "llama-3.1-405b": _sized(llama31, 16384, 53248, 126, 128, 8),
        "llama-3.2-1b": dataclasses.replace(_sized(llama32, 2048, 8192, 16, 32, 8), head_dim=64),
        "llama-3.2-3b": _sized(llama32, 3072, 8192, 28, 24, 8),
        "llama-3.3-70b": llama31_70b,
        "tinyllama-1.1b": dataclasses.replace(
            _sized(llama2_7b, 2048, 5632, 22, 32, 4), head_dim=64, max_positions=2048
        ),
        "smollm2-135m": _sized(smollm2, 576, 1536, 30, 9, 3),
        "smollm2-360m": _sized(smollm2, 960, 2560, 32, 15, 5),
        "smollm2-1.7b": dataclasses.replace(_sized(smollm2, 2048, 8192, 24, 32, 32), rope_theta=130000.0),
    }


def _sized(like: LlamaConfig, width: int, feed_forward: int, layers: int, heads: int, kv_heads: int) -> LlamaConfig:
    return dataclasses.replace(
        like,
        hidden_size=width,
        intermediate_size=feed_forward,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
    )
