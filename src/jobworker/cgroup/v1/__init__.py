"""cgroup version 1: one tree for each controller."""
