"""What a run can be told: the schema, how a command line becomes a Config, and how mistakes are named."""
