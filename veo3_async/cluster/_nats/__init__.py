"""All that knows nats-py: connection, streams, consumers, messages."""
