"""A full step of one rank in a world of any size, on fake tensors. Read rehearse.py first, then watch.py."""
