"""scripts/launch.py: torchrun's arguments, with the workers' exit code, and signals forwarded to workers."""
