"""The door for a backend: a class with the methods of base.py, its maker, and one line here. backend.name names the
entry, or module:maker outside; ``auto`` and ``fake`` are words of backend.name, not entries.
"""

BACKENDS = {
    "native": "trainer.backends.native.making:make",
    "neuron": "trainer.backends.neuron.making:make",
}
"""Name -> module:maker; a maker takes (Config, Derived, Mesh, MakeOptimizer) and returns a Backend (base.py).
Imports nothing, so that trainer.rules may read the names."""
