"""Coverage-guided fuzzing of everything that genplug reads from others (docs/contributing/fuzzing.md)."""
