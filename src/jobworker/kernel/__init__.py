"""The kernel calls that Python lacks or hides, one subject a module."""
