"""The graphs of a step: read from text, compared between ranks, and guarded against late compilation."""
