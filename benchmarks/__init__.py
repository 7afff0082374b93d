"""What Cachelab costs, each figure beside something real that was measured in the same run."""

# In the order in which `make bench` runs them.
NAMES = (
    "start",
    "stage",
    "models",
    "growth",
    "production",
    "widgets",
    "notebooks",
    "setup",
)
