"""What a reply means for one task: phases, retries, and the step after each reply. Pure."""
