"""The cloud side: generate heads from uploaded features, and train the models that do."""
