"""What a family looks like once it is built."""
