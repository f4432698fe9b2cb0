"""Every table of both papers: what they print beside what was measured here."""
