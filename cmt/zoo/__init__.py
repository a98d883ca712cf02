"""What is published of each network, and what ours counts."""
