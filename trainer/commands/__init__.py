"""One module for each script of scripts/."""
