"""The door for an optimizer: one file, and one line here. optim.name names the entry, or module:maker outside."""

OPTIMIZERS = {
    "adamw": "trainer.optim.adamw:MixedPrecisionAdamW",
}
"""Name -> module:maker. A maker is a class with the interface of torch.optim.Optimizer, called as docs/extending.md
says, or a subclass of trainer.optim.mixed_precision.MixedPrecision. Imports nothing, so that trainer.rules may read the
names.
"""
