"""What can be known about a Trainium machine without its runtime: cores, packages, variables, commands. No torch."""
