"""Training in torch as ours: AdamW without weight decay on norms and biases, and clipped gradients."""

import torch

from lema_jax.training.optimizer import OptimizerConfig


class Adamw:
    """Steps of a model's trained parameters, with the settings of one of our optimizers (a constant rate)."""

    def __init__(self, model: torch.nn.Module, config: OptimizerConfig) -> None:
        vector = lambda name: "norm" in name or name.endswith("bias")
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in trained if not vector(name)], "weight_decay": config.weight_decay},
            {"params": [p for name, p in trained if vector(name)], "weight_decay": 0.0},
        ]
        self._trained, self._clip_norm = [p for _, p in trained], config.clip_norm
        betas = (config.beta1, config.beta2)
        self._optimizer = torch.optim.AdamW(groups, config.learning_rate, betas, config.epsilon)

    def step(self, loss: torch.Tensor) -> float:
        """One step against the gradient of the loss, whose value it returns."""
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, self._clip_norm)
        self._optimizer.step()
        return loss.item()
