"""Export a version: its folder, its model card, and its scores in mteb's format."""
