"""Options of every command.

A command is a frozen dataclass: its fields are the options, `__post_init__` refuses wrong ones. Nothing here
imports torch, Ray, MLflow or transformers; `pipelines.cli` imports a command's pipeline when it runs.
"""
