"""Forecasts that a policy may use: response lengths and traffic."""
