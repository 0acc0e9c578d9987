"""The door for a model family: one file, and one line here. model.family names the entry, or module:maker outside."""

FAMILIES = {
    "llama": "trainer.models.families.llama:family",
    "mistral": "trainer.models.families.mistral:family",
    "qwen2": "trainer.models.families.qwen2:family",
    "qwen3": "trainer.models.families.qwen3:family",
    "falcon": "trainer.models.families.falcon:family",
    "gpt2": "trainer.models.families.gpt2:family",
    "olmo2": "trainer.models.families.olmo2:family",
}
"""Name -> module:maker; a maker takes the ModelConfig and returns a trainer.models.family.Family. Imports nothing, so
that trainer.rules may read the names. Each module's FORMAT (trainer/pretrained/format.py) says what its directories in
Hugging Face's layout mean, and is imported without torch."""
