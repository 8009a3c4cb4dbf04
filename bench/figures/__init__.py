"""One module for each figure; what they are called is in ``bench.__main__``."""
