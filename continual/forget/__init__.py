"""Forgetting: remove rows from everything that a workspace stores, and rebuild the models without them."""
