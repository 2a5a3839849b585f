"""Learned policies: networks, training, evaluation and their tuned hyper-parameters."""
