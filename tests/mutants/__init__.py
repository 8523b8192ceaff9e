"""Faults planted one at a time, to see that the tests notice them: `make mutants`."""
