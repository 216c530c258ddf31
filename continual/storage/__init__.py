"""Files that are either complete or absent, and lock files. Imports nothing about models or workspaces."""
