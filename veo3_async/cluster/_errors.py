"""What the operator of the NATS server must mend."""

from __future__ import annotations

from veo3_async._errors import Veo3Error

__all__ = ["ClusterError"]


class ClusterError(Veo3Error):
    """Raised when NATS refuses: the credentials, a permission, or another setting of a stream."""
