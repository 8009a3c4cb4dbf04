"""The SDK: the verbs of the worker, spoken to a service."""
