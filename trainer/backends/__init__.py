"""What executes the step. base.py is the Protocol; only backends/neuron (to come) may import XLA."""
