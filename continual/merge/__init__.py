"""Merge methods, and the engine that applies them to model folders. Knows tensors and folders, not workspaces.

`continual.merge.rules` sets the weight of an update and does not import torch; `continual.merge.engine` computes.
"""
