"""The door for a model family: one file, and one line here. model.family names the entry, or module:maker outside."""

PLAIN = "trainer.models.plain:plain_family"
"""The decoder as its switches have it."""
FAMILIES = {
    "llama": PLAIN,
    "mistral": PLAIN,
    "qwen2": PLAIN,
    "qwen3": PLAIN,
    "falcon": PLAIN,
    "gpt2": "trainer.models.families.gpt2:family",
    "olmo2": PLAIN,
}
"""Name -> module:maker; a maker takes the ModelConfig and returns a trainer.models.family.Family. Imports nothing, so
that trainer.rules may read the names."""


def format_named(family: str) -> str:
    """module:name of what a family's directories in Hugging Face's layout mean (trainer/pretrained/format.py): in the
    file of its name, which is imported without torch.
    """
    return f"{__name__}.{family}:FORMAT"
