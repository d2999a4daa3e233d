"""The classroom: reinforcement learning small enough to be watched and proved, on a board of Tic-Tac-Toe.

The player is trained by the same `trimtab.align.ppo` that aligns a language model. An exact oracle knows the right
answer in every state, so what the player learnt is not estimated but checked, line of play by line of play.
"""
