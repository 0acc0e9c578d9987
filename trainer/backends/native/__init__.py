"""PyTorch on CPU."""
