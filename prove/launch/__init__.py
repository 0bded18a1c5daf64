"""Turns jobs into running workers: one here, a pool of them, SLURM arrays; and finds out what became of them."""
