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
    return _llamas() | _qwens() | _gemmas() | {"mistral-7b": _mistral()}


def _llamas() -> dict[str, LlamaConfig]:
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


def _mistral() -> LlamaConfig:
    """Version 0.1, whose layers have a window."""
    like = LlamaConfig(max_positions=32768, layer_kinds=("local",), window=4096, family="mistral")
    return _sized(like, 4096, 14336, 32, 32, 8)


def _qwens() -> dict[str, LlamaConfig]:
    """Qwen2.5, whose vocabularies are padded to 151,936 or 152,064 rows, and Qwen3."""
    long = LlamaConfig(vocab_size=151936, rope_theta=1e6, norm_eps=1e-6)
    qwen2 = dataclasses.replace(long, max_positions=32768, attention_bias=True, output_bias=False, family="qwen2")
    tied2 = dataclasses.replace(qwen2, tie_embeddings=True)
    large2 = dataclasses.replace(qwen2, vocab_size=152064)
    qwen3 = dataclasses.replace(long, max_positions=40960, qk_norm="head", family="qwen3")
    tied3 = dataclasses.replace(qwen3, tie_embeddings=True)
    return {
        "qwen2.5-0.5b": dataclasses.replace(_sized(tied2, 896, 4864, 24, 14, 2), head_dim=64),
        "qwen2.5-1.5b": _sized(tied2, 1536, 8960, 28, 12, 2),
        "qwen2.5-3b": _sized(tied2, 2048, 11008, 36, 16, 2),
        "qwen2.5-7b": _sized(large2, 3584, 18944, 28, 28, 4),
        "qwen2.5-14b": _sized(large2, 5120, 13824, 48, 40, 8),
        "qwen2.5-32b": _sized(large2, 5120, 27648, 64, 40, 8),
        "qwen2.5-72b": _sized(large2, 8192, 29568, 80, 64, 8),
        "qwen3-0.6b": _sized(tied3, 1024, 3072, 28, 16, 8),
        "qwen3-1.7b": _sized(tied3, 2048, 6144, 28, 16, 8),
        "qwen3-4b": _sized(tied3, 2560, 9728, 36, 32, 8),
        "qwen3-8b": _sized(qwen3, 4096, 12288, 36, 32, 8),
        "qwen3-14b": _sized(qwen3, 5120, 17408, 40, 40, 8),
        "qwen3-32b": _sized(qwen3, 5120, 25600, 64, 64, 8),
    }


def _gemmas() -> dict[str, LlamaConfig]:
    """The text models of Gemma 3, five local layers to one global; those above 1B have rows for tokens of images."""
    small = LlamaConfig(
        vocab_size=262144,
        head_dim=256,
        max_positions=32768,
        rope_theta=1e6,
        norm_eps=1e-6,
        tie_embeddings=True,
        layer_kinds=("local",) * 5 + ("global",),
        window=512,
        local_rope_theta=1e4,
        qk_norm="head",
        norms="both",
        norm_offset=True,
        activation="gelu_tanh",
        scale_embeddings=True,
        family="gemma3_text",
    )
    scaling = RopeScaling("linear", 8.0)
    large = dataclasses.replace(small, vocab_size=262208, max_positions=131072, window=1024, rope_scaling=scaling)
    widest = dataclasses.replace(large, head_dim=128, attention_width=168)
    return {
        "gemma-3-1b": _sized(small, 1152, 6912, 26, 4, 1),
        "gemma-3-4b": _sized(large, 2560, 10240, 34, 8, 4),
        "gemma-3-12b": _sized(large, 3840, 15360, 48, 16, 8),
        "gemma-3-27b": _sized(widest, 5376, 21504, 62, 32, 16),
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
