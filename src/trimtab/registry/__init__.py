"""Wing: versions of a model, where they came from, and which of them answers."""
