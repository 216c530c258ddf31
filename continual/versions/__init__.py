"""Versions: the first one, and the scores, rebuild, removal and comparison of any."""
