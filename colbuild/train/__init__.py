"""Training and measuring: losses, the loop, packed text."""
