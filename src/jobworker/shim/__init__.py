"""The processes beside the daemon: launcher, shim, and the child between fork and exec."""
