"""The command ``jobworker``, for operators."""
