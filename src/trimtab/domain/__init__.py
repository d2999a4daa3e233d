"""Values and contracts: the nouns every other part speaks. Imports nothing of ours."""
