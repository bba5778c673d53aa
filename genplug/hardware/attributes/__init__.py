"""Attributes of candidates (config-language: Attributes): one module for each family, one table, read when asked for.

``facts.py`` holds the table and what is known of one candidate; ``place.py`` is a device's place in /sys, where all
families begin; ``joins.py`` reads what a configuration defines. An attribute that cannot be read does not exist.
"""
