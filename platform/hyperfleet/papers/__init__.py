"""The two papers: their printed numbers, our tables beside them, and what is trained for these."""
