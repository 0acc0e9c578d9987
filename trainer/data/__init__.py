"""Text in, packed batches out: sources -> tokens -> samples -> mixture -> global order -> this rank's slice.

Reading order:

- heavy: packages in native code, imported before all else
- paths: which files a source names, and how a source's problems are reported
- remote: which objects in S3 a source names, and their copies on this machine
- documents: the texts of a source, in a fixed order, and the digest of its content
- tokenizer, tokenizer_files, vocabularies: texts to ids and back; the files that people have for it
- indexed: Megatron's .bin/.idx files, and their writer
- pieces: pieces of a large file, read where they are
- rising: searching the tables of an index
- shard: one .bin/.idx pair, opened in place
- stream: documents of several pairs as one stream of tokens
- cache: a directory built once, by the first process that needs it, and keyed by content
- cutting: where a long document may be cut without a change of its ids
- encoding: texts to arrays of ids, a batch at a time
- chat: conversations as documents, by templates, with what is trained on
- tokenizing: one source turned into a training and a held-out .bin/.idx pair, with its figures
- ranges: which documents of token files that are ready are held out
- in_place: token files that are ready, opened where they are
- preparing: a corpus turned into shards once, in parallel, before any run
- manifest, prepared: such shards, opened where they are
- known: fingerprints of sources, kept
- amounts: whether there are documents to train on and to hold out
- corpus: all of the above put together by prepare_corpus
- packing, best_fit, packings: the token stream cut into samples, or whole documents put together into them
- permutation: pseudo-random order computed index by index, without a stored table
- order: the mixture of sources and the global cursor
- loader: one rank's batches for each step
- heldout: the held-out windows that evaluation scores, and their zlib size
- progress: a bar on a terminal, plain lines elsewhere
"""

from trainer.data import heavy as heavy
