"""What we are measured against, set up from Debian's packages and taken away again."""
