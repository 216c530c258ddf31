"""The workspace of the recipes: two domains of which nothing was learned."""

from tests.recipes.conftest import stocked, workspace

__all__ = ["stocked", "workspace"]
