"""What every training shares: the loop, checkpoints, metrics, memory, threads and processes."""
