"""Query-key interaction in vision transformers: decompose heads, study what tokens attend to.

Everything is reached from here, and loaded when it is first used: `__init__.pyi` lists it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
