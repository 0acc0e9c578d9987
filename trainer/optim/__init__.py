"""The door for an optimizer: one file, and one line here. optim.name names the entry, or module:maker outside."""

OPTIMIZERS = {
    "adamw": "trainer.optim.adamw:MixedPrecisionAdamW",
}
"""Name -> module:maker; a maker takes (parameters, rules, OptimConfig, precision mode, counted regions) and returns a
trainer.backends.native.update.optimizer.Optimizer. Imports nothing, so that trainer.rules may read the names."""
