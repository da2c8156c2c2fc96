"""Search strategies for what is not a sum over slots, and for comparison: heuristics and integer programming."""
