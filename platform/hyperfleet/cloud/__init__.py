"""The cloud's side: generating heads from uploaded features, and training what generates them."""
