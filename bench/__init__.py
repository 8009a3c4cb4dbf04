"""Measurements of the whole product, each against something real in the same run."""
