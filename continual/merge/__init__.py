"""Merging: how an update joins what is in service. Knows tensors and folders, not workspaces.

`continual.merge.rules` decides the weight of an update and needs no torch; `continual.merge.engine` computes.
"""
