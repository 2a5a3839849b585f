"""Fits of the cost model to public measurements, one module a data family. Needs scipy."""
