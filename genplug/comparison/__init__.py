"""Compares what two configurations offer on a node. Pure: two plans in, their differences out."""
