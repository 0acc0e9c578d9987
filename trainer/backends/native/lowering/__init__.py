"""From the plain model to one rank's part of it, on PyTorch's own collectives."""
