"""What must hold for whole networks, on a simulated clock and in memory."""
