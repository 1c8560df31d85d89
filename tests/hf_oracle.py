"""transformers' models as an independent implementation: made from a `config.json`, read as a Source."""

from typing import Any

import numpy as np
import torch
import transformers

from lema_jax.weights.families import FAMILIES
from lema_jax.weights.names import Index


class StateDict:
    """A torch module's weights as a `weights.names.Source`."""

    where = "a torch module"

    def __init__(self, model: torch.nn.Module):
        self.tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        if model.config.tie_word_embeddings:
            del self.tensors["lm_head.weight"]

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(np.float32)

    def read(self, name: str, index: Index) -> np.ndarray:
        return self.tensors[name][index].float().numpy()


def small(family: str, **more: Any) -> dict[str, Any]:
    """A small `config.json` with what the family has beside LLaMA; its window and its layers are short."""
    sizes = {
        "model_type": family,
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 96,
        "tie_word_embeddings": False,
    }
    some = {
        "attention_bias": True,
        "mlp_bias": True,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
        "sliding_window_pattern": 2,
        "rope_local_base_freq": 55.0,
        "no_rope_layers": [1, 0, 1],
        "query_pre_attn_scalar": 7,
        "attn_logit_softcapping": 1.5,
        "final_logit_softcapping": 1.5,
    }
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return sizes | special | {key: value for key, value in some.items() if key in FAMILIES[family].keys} | more


def make(raw: dict[str, Any], seed: int = 0) -> transformers.PreTrainedModel:
    """A float32 model of that `config.json` whose every weight is random: norms and biases too."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(**raw)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    offset = config.model_type.startswith("gemma")  # its norms multiply by 1 + w
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn_like(tensor)
            tensor.copy_(
                (0 if offset else 1) + 0.2 * noise
                if "norm" in name
                else noise * (0.3 if name.endswith("bias") else 0.1)
            )
    return model.eval()


def logits(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    """[B, T] -> [B, T, V]."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.float().numpy()


def loss_and_gradients(model: torch.nn.Module, tokens: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """Mean next-token loss over all positions but the last, and its gradients by Hugging Face's names."""
    ids = torch.from_numpy(tokens)
    model.zero_grad()
    loss = model(ids, labels=ids).loss
    loss.backward()
    return loss.item(), {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
