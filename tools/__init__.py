"""What maintainers run: the set-up and the notebook builder."""
