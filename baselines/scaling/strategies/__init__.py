"""Scaling strategies that are not learned, from static fleets to planning by an integer program."""
