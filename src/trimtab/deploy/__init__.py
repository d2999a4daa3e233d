"""From questions to a running answer: what a deployment must do (`plan`), what it would take (`estimate`), what each
variant of a model really does on this machine (`campaign`), and which one to serve (`choose`).

Knows no engine: whoever measures is handed a `Stage` that starts variants, and everything is asked over HTTP.
"""
