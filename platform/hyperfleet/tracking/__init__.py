"""Where runs are recorded and models are registered; the only package that knows MLflow."""
