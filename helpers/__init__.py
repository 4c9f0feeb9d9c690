"""Tokens as Actions: the tested code behind the notebooks.

Four floors, imports only downwards (a test enforces it):
mathematics (`logprobs`, `kl`) → worlds (`worlds`, `rewards`, `grammar`, `tabular`, `exact`) →
language models (`models`, `rollout`, `pretraining`) →
presentation (`plotting`, `widgets`, `checks`).
"""

__version__ = "0.1.0"
