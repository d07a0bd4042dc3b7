"""One protocol connection pumped over one transport, callable from any thread."""

from liteyuki_host.comm.link.link import Link, LinkHandler

__all__ = ["Link", "LinkHandler"]
