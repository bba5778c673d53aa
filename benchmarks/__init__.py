"""Measure the budgets of docs/explanation/benchmarks.md on a real agent process. ``python -m benchmarks --help``."""
