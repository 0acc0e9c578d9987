"""What a configuration may say, and what follows from it. No torch."""
