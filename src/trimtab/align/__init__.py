"""From judgement to weights: the same reinforcement learning for a Tic-Tac-Toe player and for a language model.

Needs the extra `align`; every module here imports torch or numpy at its top and is itself imported only when asked for.
"""
