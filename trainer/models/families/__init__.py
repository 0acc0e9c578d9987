"""The door for a model family: one file, and one line here. model.family names the entry, or module:maker outside."""

FAMILIES = {
    "llama": "trainer.models.families.llama:family",
}
"""Name -> module:maker; a maker takes the ModelConfig and returns a trainer.models.family.Family. Imports nothing, so
that trainer.rules may read the names."""
