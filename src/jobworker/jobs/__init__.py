"""The jobs of one state directory: journal, registry, recovery."""
