"""Kernels that need a Trainium core."""
