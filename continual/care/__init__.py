"""The health of a workspace: what is damaged, missing or left over, and what can be mended."""
