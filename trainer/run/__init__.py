"""One run: its name, its directory, its signals and its end."""
