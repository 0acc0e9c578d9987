"""The keys of a run, one file a group; the values are in the folders of conf/ with the same names."""
