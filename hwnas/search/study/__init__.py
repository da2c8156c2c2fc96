"""Studies: networks trained from scratch, proposed by Optuna within latency budgets."""
