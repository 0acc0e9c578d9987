"""Records of a run, throughput, and the sinks that show or store them."""
