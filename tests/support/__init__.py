"""What several suites share: guards against leaks and the rule about missing kernel features."""
