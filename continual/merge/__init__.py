"""Merging: how an update joins what is in service. Knows tensors and folders, not workspaces."""

from continual.merge.engine import merge_models
from continual.merge.rules import RULES, Coefficient, check_rule, coefficient

__all__ = ["RULES", "Coefficient", "check_rule", "coefficient", "merge_models"]
