"""What demo, benchmark and soak share: a stage to play on, readers, tables."""
