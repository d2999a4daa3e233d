"""What background jobs do: one module a kind of job, each composing the wings in a process of its own.

A module has `work(job, report) -> result`. It is imported in the worker only: nothing of it is loaded by the server.
"""

KINDS = ("align", "measure", "student", "tictactoe")
