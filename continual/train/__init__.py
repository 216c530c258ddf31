"""Training: a LoRA update of a text-embedding model, and folding it into full weights.

Knows model folders and Arrow tables, not workspaces.
"""
