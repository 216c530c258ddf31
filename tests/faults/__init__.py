"""The fault harness: kills, races, mutated inputs, flipped bits and faults of the system, short or long.

`python -m tests.faults` runs its phases at length, and `test_phases.py` a few attempts of each; see
docs/reliability.md.
"""
