"""What several suites share: guards against leaks and the rule about missing kernel features."""

from jobworker.security.tls import apply_tls_policy

# Before any test imports gRPC: a server in this process then speaks what the product's does.
apply_tls_policy()
