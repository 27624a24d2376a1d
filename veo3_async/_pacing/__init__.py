"""When to ask again for one id: policies, and what is learned of durations. Pure."""
