"""Cloud side: generation of heads from uploaded features, and training of the models."""
