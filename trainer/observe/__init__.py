"""What people and programs see of a run: records, throughput, sinks."""
