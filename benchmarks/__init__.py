"""Benchmarks: the budgets of docs/design.md, measured on a real agent process. ``python -m benchmarks --help``."""
