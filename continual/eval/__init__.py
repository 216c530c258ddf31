"""Evaluation: tasks, scores, the R matrix and its metrics, significance, the gate, the report. It never trains.

Only `tasks`, `encoder` and `run` import mteb and torch, so a report is rendered without them.
"""
