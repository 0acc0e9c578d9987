"""What both backends need alike."""
