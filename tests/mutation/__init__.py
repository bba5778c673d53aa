"""Mutation testing of the modules that decide: ``python -m tests.mutation`` and the list of accepted survivors."""
