"""What happens when something goes wrong: signals, non-finite gradients."""
