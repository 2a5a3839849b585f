"""Policies that are not learned, by problem."""
