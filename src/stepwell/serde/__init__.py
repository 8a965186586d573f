"""Values and errors to JSON text with tagged types, and back, equal in type and value."""

from stepwell.serde import _classed, _containers, _error_values, _scalars  # noqa: F401  they fill the tables
from stepwell.serde._capture import capture, to_error_object
from stepwell.serde._envelope import decode_envelope
from stepwell.serde._placeholder import Placeholder
from stepwell.serde._reader import decode, decode_lenient
from stepwell.serde._rebuild import rebuild
from stepwell.serde._redactor import Redactor, current_redactor
from stepwell.serde._registry import register
from stepwell.serde._roundtrip import roundtrip
from stepwell.serde._secret import Secret
from stepwell.serde._writer import encode

__all__ = [
    "Placeholder",
    "Redactor",
    "Secret",
    "capture",
    "current_redactor",
    "decode",
    "decode_envelope",
    "decode_lenient",
    "encode",
    "rebuild",
    "register",
    "roundtrip",
    "to_error_object",
]

# As in stepwell.errors: tracebacks and records name the public place.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
