"""The parts of the reference simulator; `tests/reference_simulator.py` is its entry."""
