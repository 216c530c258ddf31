"""Training: a LoRA update of a text-embedding model, and its fold into full weights.

Knows model folders and Arrow tables, never workspaces.
"""
