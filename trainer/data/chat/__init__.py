"""Conversations as documents: rows of several shapes, the text that a template makes of them, what is trained on.

Reading order:

- bounded, template: other people's templates in jinja2's sandbox
- turns: what a conversation has to be; shapes: rows of a source as conversations
- specials, probe: what a template writes around a turn
- marking: where the assistant's turns stand in a text
- conversation: one conversation as text and as tokens
- settings: how the sources of a run are rendered, for the run and for workers of a preparation
"""
