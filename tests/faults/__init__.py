"""The fault harness: kills, races, mutated inputs, flipped bits and faults of the system.

`test_phases.py` makes a few attempts of each, and `make faults` thousands; see docs/reliability.md.
"""
