"""From judgement to weights: the same reinforcement learning for a Tic-Tac-Toe player and for a language model.

What trains needs the extra `align`: those modules import torch or numpy at their top and are themselves imported only
when asked for. What is about data (`curation`, `dataset`, `interchange`, `blame`, `raters`, …) is plain Python.
"""
