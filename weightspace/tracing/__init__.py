"""Specs of networks that come as modules: traced by ``torch.export``, read by one table of rules."""

from weightspace.tracing._spec_of import spec_of

__all__ = ["spec_of"]
