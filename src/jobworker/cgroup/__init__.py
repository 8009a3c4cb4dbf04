"""Control groups: where a job's processes live and what holds them to their limits."""
