"""From the plain model to neuronx-distributed's layers and pipeline."""
