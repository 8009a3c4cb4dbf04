"""The client SDK's door: ``connect`` to a service, and use it as one uses a worker.

Importing this package loads gRPC under the TLS policy.  A program that uses gRPC by itself too and
wants version 1.3 only from its own side imports this first.
"""

from jobworker.security.tls import apply_tls_policy

# Before any module of this package imports gRPC; they may then do so plainly.
apply_tls_policy()

from jobworker.client.backoff import Patience as Patience  # noqa: E402 -- see above
from jobworker.client.sdk import Caller as Caller  # noqa: E402
from jobworker.client.sdk import Client as Client  # noqa: E402
from jobworker.client.sdk import connect as connect  # noqa: E402
from jobworker.client.target import Target as Target  # noqa: E402
