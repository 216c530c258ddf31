"""Evaluation: tasks, scores, the R matrix and its metrics, significance. This package never trains.

`avalanche`, `encoder`, `hub_cache`, `mteb_evaluate`, `mteb_tasks`, `run` and `tasks` import mteb or torch. The other
modules don't, so a report renders without them.
"""
