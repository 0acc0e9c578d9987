"""Training of large language models on AWS Trainium, with the same curve on a laptop.

Imports point one way (pyproject.toml holds the contracts): commands -> recipes -> training -> rehearsal ->
models, optim, data, checkpoint, observe, backends -> launchers -> rules -> run -> parallel -> config, trainium ->
ahead, batch, errors, files -> redact.
"""
