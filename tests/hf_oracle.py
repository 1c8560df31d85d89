"""transformers' models as an independent implementation: made from a `config.json`, read as a Source."""

from typing import Any

import numpy as np
import torch
import transformers

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
