"""Options of every command.

A command is a frozen dataclass: its fields are the options, `__post_init__` refuses wrong ones, `run` imports
what the command needs and runs it. Nothing here imports torch, Ray, MLflow or transformers before `run`.
"""
