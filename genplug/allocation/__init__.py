"""Turns devices and their health into offers, and device IDs into container edits: Allocate, preference, CDI."""
