"""Pairs: what makes rows out of what a team has."""
