"""Experiments: policies over scenarios and seeds, their statistics, tables and report."""
