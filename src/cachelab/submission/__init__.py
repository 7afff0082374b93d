"""Judging a notebook file behind a fence."""
