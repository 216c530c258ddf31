"""Continual learning for text-embedding models."""
