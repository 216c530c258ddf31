"""LoRA layers as fast as plain ones: one matrix product forward, and no gradient for frozen weights.

peft computes W x + s B (A x) for each layer and micro-batch. W + s B A is constant between two optimizer steps, so it
is computed here once per step, and a layer is one product with it. The backward pass uses the same matrix for the
gradient of x, and products of the small rank for the gradients of A and B; it never computes the gradient of the whole
matrix. In fp32 the result equals peft's up to rounding.

In bf16 the sum is computed in fp32 and rounded once. The rounding error is as large as with peft, where autocast rounds
W for every micro-batch. The gradients of A and B stay in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_ADAPTER = "default"


class MergedLinear(torch.autograd.Function):
    """y = x V^T + bias with V = W + s B A, and gradients only for x, A and B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, merged: MergedLayer) -> Tensor:
        """Return y of shape [..., out] in the type of V, for x of shape [..., in] in any type."""
        ctx.type, ctx.scale = x.dtype, merged.scale
        x = x.to(merged.weight.dtype)
        ctx.save_for_backward(x, merged.weight, merged.a, merged.b)
        return linear(x, merged.weight, merged.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x in its type, and of A and B in fp32."""
        x, weight, a, b = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0])  # [tokens, out]
        flat = x.reshape(-1, weight.shape[1])  # [tokens, in]
        a_gradient = ((gradient @ b).T @ flat).float().mul_(ctx.scale)
        b_gradient = ((flat @ a.T).T @ gradient).T.float().mul_(ctx.scale)  # the fastest order on a CPU
        x_gradient = (gradient @ weight).view(x.shape).to(ctx.type) if ctx.needs_input_grad[0] else None
        return x_gradient, a_gradient, b_gradient, None


class MergedLayer:
    """A peft LoRA layer with its merged weight V = W + s B A, and copies of A and B in the same type."""

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
        """Recompute the merged weight."""
        a, b = (factor.detach() for factor in self.factors)
        self.weight.copy_(torch.addmm(self.layer.base_layer.weight, b, a, alpha=self.scale))
        self.a, self.b = a.to(self.weight.dtype), b.to(self.weight.dtype)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Compute the layer's output; replaces the forward pass of peft's layer."""
        if self.layer.disable_adapters:
            return linear(x, self.layer.base_layer.weight, self.layer.base_layer.bias)
        result: Tensor = MergedLinear.apply(x, *self.factors, self)  # type: ignore[no-untyped-call]
        return result


class FusedLora:
    """Make every LoRA layer of a model compute with its merged weight, until `undo` is called.

    Args:
        model: A model with peft LoRA layers, with dropout 0, one adapter and parameters in fp32.
        dtype: The type that the layers compute in, fp32 or bf16.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        from peft.tuners.lora import Linear

        self.layers = [MergedLayer(module, dtype) for module in model.modules() if isinstance(module, Linear)]
        for merged in self.layers:
            merged.layer.forward = merged.forward
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Recompute the merged weights; must be called after every change of A or B."""
        for merged in self.layers:
            merged.refresh()

    def undo(self) -> None:
        """Restore peft's own forward pass in all layers."""
        for merged in self.layers:
            merged.layer.__dict__.pop("forward", None)
