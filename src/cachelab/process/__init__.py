"""Processes and calls that end when they should, and errors of one sentence."""
