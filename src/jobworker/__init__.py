"""Run commands on a Linux machine: limits around them, every byte out, an honest ending.

This package imports nothing.  The doors are ``jobworker.worker`` (run jobs on this machine),
``jobworker.client`` (run them on another), ``jobworker.model`` (the values both speak of) and
``jobworker.errors``.
"""

__version__ = "0.1.0"
