"""One protocol connection pumped over one transport, callable from any thread."""

from .link import INLINE_BURST, Link, LinkHandler

__all__ = ["INLINE_BURST", "Link", "LinkHandler"]
