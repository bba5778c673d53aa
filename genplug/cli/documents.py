"""The type of the documents that commands print as text."""

from collections.abc import Mapping
from typing import Any

JSON = Mapping[str, Any]
"""A document of ``/statusz``, or an object in it; ``schemas/status.schema.json`` describes the keys."""
