"""The packages in native code that the data path stands on, imported first and in one order.

In an order that followed from what a run happened to read first, one such process died in native code.
"""

import pyarrow  # noqa: F401
import tokenizers  # noqa: F401  # after it
