"""The two papers: their printed numbers, our tables beside them, and the experiments for those tables."""
