"""Decodes the items of a Kubernetes list one after another, while the document arrives."""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from genplug.spec.json_text import check_depth
from genplug.spec.limits import MAX_KUBECTL_ITEM_CHARACTERS

_ITEMS = re.compile(
    r'\s*\{(?:\s*"(?:apiVersion|kind)"\s*:\s*"[^"]*"\s*,)*(?:\s*"metadata"\s*:\s*\{[^{}]*\}\s*,)?'
    r'(?:\s*"(?:apiVersion|kind)"\s*:\s*"[^"]*"\s*,)*\s*"items"\s*:\s*\['
)
"""The start of a list. kubectl sorts the keys; API servers print `metadata`, which has no objects, before `items`."""
_MAX_START_CHARACTERS = 4096
_SPACE = re.compile(r"\s*")
_SEPARATOR = re.compile(r"\s*,?\s*")


class ListError(Exception):
    """The document is not a list of objects, or is incomplete."""


class ItemReader:
    """Reads the chunks of a document ``{"items": [...], ...}``; only an incomplete item is kept."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._json = json.JSONDecoder()
        self._text = ""
        self._has_started = False
        self._has_ended = False

    def feed(self, chunk: bytes) -> Iterator[Mapping[str, Any]]:
        """Yield the items that are complete with this chunk.

        Raises:
            ListError: the text is not a list, or an item is too large.
        """
        if self._has_ended:
            return
        self._text += self._decoder.decode(chunk)
        if not self._has_started:
            self._start()
        position = 0
        while self._has_started and not self._has_ended:
            position = self._skip(_SEPARATOR, position)
            if self._text.startswith("]", position):
                self._has_ended = True
                self._text = ""
                return
            try:
                item, position = self._json.raw_decode(self._text, position)
            except RecursionError:
                raise ListError("an item has too many levels") from None
            except ValueError:
                self._keep(position)
                return
            if not isinstance(item, dict):
                raise ListError(f"expected a list of objects, found an item of type {type(item).__name__}")
            try:
                check_depth(item)
            except ValueError as error:
                raise ListError(f"an item has {error}") from None
            yield item

    def close(self) -> None:
        """Raise an error if the list is not complete.

        Raises:
            ListError: the text is not a list, or ends before the list does.
        """
        if not self._has_started:
            raise ListError(f"expected a JSON list, found {self._text[:60]!r}" if self._text else "no output")
        if not self._has_ended:
            raise ListError("the list is incomplete")

    def _start(self) -> None:
        if match := _ITEMS.match(self._text):
            self._has_started = True
            self._text = self._text[match.end() :]
        elif len(self._text) > _MAX_START_CHARACTERS:
            raise ListError(f"expected a JSON list, found {self._text[:60]!r}")

    def _skip(self, pattern: re.Pattern[str], position: int) -> int:
        match = pattern.match(self._text, position)
        return match.end() if match else position

    def _keep(self, position: int) -> None:
        """Keep the incomplete item; it is decoded again with the next chunk."""
        self._text = self._text[position:]
        if self._text and not self._text.startswith("{"):
            raise ListError(f"expected an object, found {self._text[:60]!r}")
        if len(self._text) > MAX_KUBECTL_ITEM_CHARACTERS:
            raise ListError(f"an item has more than {MAX_KUBECTL_ITEM_CHARACTERS} characters")
