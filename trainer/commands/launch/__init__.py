"""scripts/launch.py: torchrun's arguments, the workers' own exit code, and signals that reach them."""
