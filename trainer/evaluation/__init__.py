"""How good is a model: loss on text, tasks from files, and a class for EleutherAI's harness."""
