"""The daemon: a gRPC server around a worker."""
