"""Recipes: one module per kind of training. They assemble the parts and hand over to trainer.loop."""
