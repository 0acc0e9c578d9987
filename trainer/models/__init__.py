"""Plain models. Read decoder.py first, then attention.py, feedforward.py, loss.py, initialise.py."""
