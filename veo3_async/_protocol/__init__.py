"""What the APIs say: requests to bytes, bytes to values or problems. Pure."""
