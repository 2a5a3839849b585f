"""Scaling: how many instances of each model should serve in each region, and what the rest does."""
