"""Measuring a GPU: the layers of a model in torch, their timing, and a real engine's log."""
