"""Fixtures: a workspace with two domains of which nothing was learned."""

from tests.recipes.stock import stocked, workspace

__all__ = ["stocked", "workspace"]
