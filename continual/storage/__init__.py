"""The disk: files that are whole or not there, and locks. Knows nothing of models or workspaces."""
