"""One module a family of endpoints: how a task is submitted, asked for and read."""
