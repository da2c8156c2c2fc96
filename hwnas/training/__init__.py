"""What every training shares: checkpoints, metrics, memory, threads and processes."""
