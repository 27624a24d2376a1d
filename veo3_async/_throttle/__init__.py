"""How fast to ask: the request rate of one key. Pure."""
