"""Vocabularies in other formats than tokenizer.json, made into what the tokenizers library runs.

- protobuf: the wire format, as far as a SentencePiece model needs it
- sentencepiece: a .model of the SentencePiece library, BPE or Unigram
- tiktoken: a file of base64 tokens and ranks, of a known scheme
- pairs: GPT-2's two files, a vocabulary and its merges
- byte_level: what tiktoken's files and GPT-2's pairs have in common
- formats: which of them a path is

Nothing is guessed: what would be read into other tokens than its own library gives is refused with the reason.
"""
