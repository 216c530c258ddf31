"""LoRA layers at the price of plain ones: one matrix product forward, and no gradient for frozen weights.

peft computes W x + s B (A x) in each layer of each micro-batch. Between two optimizer steps W + s B A is
constant, so it is computed once, and each layer is a single product with it. The backward pass gives x its
gradient through the same matrix, and A and B theirs through products of their small rank, never through the
gradient of the whole matrix. In fp32 the result is peft's up to rounding.

In bf16 the sum is made in fp32 and rounded once, as autocast rounds W for peft's layers in every micro-batch: an
element's error is as large, and the gradients still go to A and B in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_ADAPTER = "default"


class MergedLinear(torch.autograd.Function):
    """y = x V^T + bias, V = W + s B A, with gradients for x, A and B only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, merged: MergedLayer) -> Tensor:
        """Return y of shape [..., out], in the type of V, for x of shape [..., in] in any type."""
        ctx.type, ctx.scale = x.dtype, merged.scale
        x = x.to(merged.weight.dtype)
        ctx.save_for_backward(x, merged.weight, merged.a, merged.b)
        return linear(x, merged.weight, merged.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, in its type, and of A and B, in fp32."""
        x, weight, a, b = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0])  # [tokens, out]
        flat = x.reshape(-1, weight.shape[1])  # [tokens, in]
        of_a = ((gradient @ b).T @ flat).float().mul_(ctx.scale)
        of_b = ((flat @ a.T).T @ gradient).T.float().mul_(ctx.scale)  # this order is the faster one on a CPU
        of_x = (gradient @ weight).view(x.shape).to(ctx.type) if ctx.needs_input_grad[0] else None
        return of_x, of_a, of_b, None


class MergedLayer:
    """A peft LoRA layer with its merged weight, and its factors in the same type."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self.layer = layer
        self.scale: float = layer.scaling[_ADAPTER]
        self.weight = torch.empty_like(layer.base_layer.weight, dtype=dtype, requires_grad=False)
        self.bias = None if layer.base_layer.bias is None else layer.base_layer.bias.detach().to(dtype)

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """The parameters A, [rank, in], and B, [out, rank], in fp32."""
        return self.layer.lora_A[_ADAPTER].weight, self.layer.lora_B[_ADAPTER].weight

    def refresh(self) -> None:
        """Compute the merged weight anew."""
        a, b = (factor.detach() for factor in self.factors)
        self.weight.copy_(torch.addmm(self.layer.base_layer.weight, b, a, alpha=self.scale))
        self.a, self.b = a.to(self.weight.dtype), b.to(self.weight.dtype)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Take the place of the layer's own forward pass."""
        if self.layer.disable_adapters:
            return linear(x, self.layer.base_layer.weight, self.layer.base_layer.bias)
        result: Tensor = MergedLinear.apply(x, *self.factors, self)  # type: ignore[no-untyped-call]
        return result


class FusedLora:
    """Lets every LoRA layer of a model compute with its merged weight, until `undo`.

    Args:
        model: A model with peft LoRA layers: dropout 0, one adapter, parameters in fp32.
        dtype: What the layers compute in, fp32 or bf16.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        from peft.tuners.lora import Linear

        self.layers = [MergedLayer(module, dtype) for module in model.modules() if isinstance(module, Linear)]
        for merged in self.layers:
            merged.layer.forward = merged.forward
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the merged weights anew; to be called after every change of A or B."""
        for merged in self.layers:
            merged.refresh()

    def undo(self) -> None:
        """Give the layers peft's own forward pass again."""
        for merged in self.layers:
            merged.layer.__dict__.pop("forward", None)
