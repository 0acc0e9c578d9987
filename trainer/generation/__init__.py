"""What a model says: weights opened to be read only, decoding with a cache, sampling, chat templates."""
