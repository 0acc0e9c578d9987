"""Preparing a corpus once, in parallel and resumably: sources in, shards of .bin/.idx with a manifest out.

Reading order:

- units: what a source is cut into; it follows from the names and sizes of its files alone
- passed_over: documents that a unit could not use
- reading: the documents of one unit
- groups: rows in a file, read by groups
- exact: documents of equal text
- near: documents of nearly equal text
- duplicates: either of these, found in a pass before the others
- unit: one unit, read, tokenised and left in a directory of its own
- shards: units put together in order, cut between documents
- worker: a process that does units and shards
- pool: such processes, and what becomes of a death
- manifest: what a prepared source says of itself
- source: which units of a source are there, and what they add up to
- tokenizer: copied or learnt, beside the sources
- passes: what workers are set to
- preparation: all sources of a configuration
"""
