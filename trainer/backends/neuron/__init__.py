"""The neuron backend: neuronx-distributed's layers, pipeline and ZeRO-1 on XLA. Only this package may import them."""
