"""Analysis of conflicts: which domains hurt each other, and the clusters of domains that follow from it."""
