"""The command ``jobctl``, for users."""
