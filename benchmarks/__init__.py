"""Measure the budgets of docs/explanation/design.md on a real agent process. ``python -m benchmarks --help``."""
