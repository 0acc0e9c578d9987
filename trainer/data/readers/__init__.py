"""Documents out of files, a block at a time: memory is bounded by a block and by one document, never by a file.

Reading order:

- found: documents with their place, and what is wrong with one that cannot be used
- formats: which format a file has, by its suffix or by what its source says
- rows: what is read of a row, a text or a conversation
- streams: the bytes of a file in blocks, unpacked, and these cut at separators
- text: a file, a paragraph or a line is a document
- jsonlines: an object a line; values: one array, or objects over several lines
- delimited: CSV and TSV
- columns, parquet, arrow: one column of a table
- webdataset: samples of members in a tar
- datasetdirs: directories that are data sets, and are read by the library of that name
- hub: data sets, through that library
- parts: a part of a large file, read on its own
- files: all files of a source, in order
"""
