"""Queries for passages that have none: extracted from them, or written by a language model, and then filtered."""
