"""One protocol connection pumped over one transport, callable from any thread."""

from .alone import INLINE_BURST
from .link import Link, LinkHandler

__all__ = ["INLINE_BURST", "Link", "LinkHandler"]
