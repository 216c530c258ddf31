"""Replay: which historical rows a step trains on again, and how they are read."""

from continual.replay.draw import Draw, Rows, Window
from continual.replay.policies import allot

__all__ = ["Draw", "Rows", "Window", "allot"]
