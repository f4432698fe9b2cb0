"""Records of runs and the model registry; the only package that uses MLflow."""
