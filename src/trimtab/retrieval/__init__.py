"""Documents in, passages out. Start at `library.Library`; importing this package alone imports nothing heavy."""
