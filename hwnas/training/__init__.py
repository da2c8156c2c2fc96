"""Shared parts of all trainings: the loop, checkpoints, metrics, memory, threads and processes."""
