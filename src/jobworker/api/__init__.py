"""The wire: generated stubs (``v1``), conversion to and from the model, and the mapping of errors."""
