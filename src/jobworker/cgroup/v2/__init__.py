"""cgroup version 2: the unified tree."""
