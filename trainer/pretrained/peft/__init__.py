"""Adapters in the layout of the peft library: adapter_config.json and adapter_model.safetensors, in and out."""
