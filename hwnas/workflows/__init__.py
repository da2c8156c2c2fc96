"""Use cases: what the command line, the stages of a job and Python users call alike."""
