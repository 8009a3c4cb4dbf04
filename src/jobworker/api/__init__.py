"""The wire: generated stubs (``v1``), conversion to and from the model, the mapping of errors."""
