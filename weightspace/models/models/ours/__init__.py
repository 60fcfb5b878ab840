"""Models of this library."""

from weightspace.models.ours._forward_messages import ForwardMessages
from weightspace.models.ours._probe_grid_net import ProbeGridNet
from weightspace.models.ours._probe_net import ProbeNet
from weightspace.models.ours._typed_messages import TypedMessages

__all__ = ["ForwardMessages", "ProbeGridNet", "ProbeNet", "TypedMessages"]
