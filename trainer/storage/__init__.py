"""Where bytes lie that are no part of this machine's memory: local files and ``s3://``, behind one small interface.

What is promised, of a local disk and of S3 alike (base.Storage):

- a write is whole or not at all: no reader ever sees half of one, and a failure leaves nothing, no unfinished upload
  either;
- ``only_new`` writes a name once: of several writers one wins, the others get Exists. A directory of several files is
  committed by such a write of its manifest, last. Who must know that it was the first writes something of its own;
- a read gives exactly the bytes that were asked for, of the very object that was listed: one that was replaced since is
  Replaced, never a mixture;
- what goes wrong is a DataError that names key, value, rule and remedy; no message holds a secret.

It is not promised that several names change together, or that a name can be renamed: S3 has neither.

Reading order:

- base: what lies somewhere, the interface, and what can go wrong
- patterns: which names a pattern means
- local: files of this machine
- answers: what an error of S3 or of its client means, and what to do about it
- client: boto3's client
- s3: objects; uploads: large ones, in parts
- open: the storage of a path
- copies: pieces of objects on a local disk, within a bound
"""
