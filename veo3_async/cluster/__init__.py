"""The watching on several machines: NATS JetStream knows who has which id, and what was seen.

`Cluster` is all there is to it. It needs nats-py: ``pip install 'veo3_async[nats]'``.
"""

from __future__ import annotations

try:
    from veo3_async.cluster._changes import Changes
    from veo3_async.cluster._cluster import Cluster
    from veo3_async.cluster._errors import ClusterError
    from veo3_async.cluster._stats import ClusterStats
    from veo3_async.cluster._watch import ClusterWatch
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "nats":
        raise
    _MESSAGE: str = "nats-py is missing: pip install 'veo3_async[nats]'"
    raise ModuleNotFoundError(_MESSAGE, name="nats") from None

__all__ = ["Changes", "Cluster", "ClusterError", "ClusterStats", "ClusterWatch"]
