"""LoRA layers at the price of plain ones: one matrix product forward, and no gradient for frozen weights.

peft computes W x + s B (A x) in each layer of each micro-batch. Between two optimizer steps W + s B A is
constant, so it is computed once, and each layer is a single product with it. The backward pass gives x its
gradient through the same matrix, and A and B theirs through products of their small rank, never through the
gradient of the whole matrix. The result is the same up to the rounding of fp32.

Only for fp32: in bf16 the rounding of the sum would swallow small updates, so there peft's own layers run.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_ADAPTER = "default"


class MergedLinear(torch.autograd.Function):
    """y = x (W + s B A)^T + b with gradients for x, A and B only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, merged: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """Return y of shape [..., out] for x of shape [..., in]; `merged` is W + s B A, [out, in]."""
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, A and B."""
        x, merged, a, b = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, merged.shape[0])  # [tokens, out]
        flat = x.reshape(-1, merged.shape[1])  # [tokens, in]
        of_a = ((gradient @ b).T @ flat).mul_(ctx.scale)
        of_b = ((flat @ a.T).T @ gradient).T.mul_(ctx.scale)  # this order is the faster one on a CPU
        of_x = (gradient @ merged).view(x.shape) if ctx.needs_input_grad[0] else None
        return of_x, None, None, of_a, of_b, None


class FusedLora:
    """Lets every LoRA layer of a model compute with its merged weight, until `undo`.

    Args:
        model: A model with peft LoRA layers: dropout 0, one adapter.
    """

    def __init__(self, model: nn.Module) -> None:
        from peft.tuners.lora import Linear

        self.layers: list[Any] = [module for module in model.modules() if isinstance(module, Linear)]
        self.merged = [torch.empty_like(layer.base_layer.weight, requires_grad=False) for layer in self.layers]
        for layer, merged in zip(self.layers, self.merged, strict=True):
            layer.forward = partial(_forward, layer, merged)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the merged weights anew; to be called after every change of A or B."""
        for layer, merged in zip(self.layers, self.merged, strict=True):
            a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
            torch.addmm(layer.base_layer.weight, b, a, alpha=layer.scaling[_ADAPTER], out=merged)

    def undo(self) -> None:
        """Give the layers peft's own forward pass again."""
        for layer in self.layers:
            layer.__dict__.pop("forward", None)


def _forward(layer: Any, merged: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    base = layer.base_layer
    if layer.disable_adapters:
        return linear(x, base.weight, base.bias)
    a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    result: Tensor = MergedLinear.apply(x, merged, base.bias, a, b, layer.scaling[_ADAPTER])  # type: ignore[no-untyped-call]
    return result
