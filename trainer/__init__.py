"""Training of large language models on AWS Trainium, with the same curve on a laptop.

Ground floor, importable by all: errors, config, batch, world, arithmetic, derive, parallel. Then the parts, which
do not import one another: models, data, optim, checkpoint, observe, reliability, backends. On top: step, loop.
"""
